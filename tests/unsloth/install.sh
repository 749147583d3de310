#!/usr/bin/env bash
# Adds the extra unsloth to the active environment, which has rlvr-lite and a CPU build of torch from Unsloth's set of
# versions (tests/constraints/unsloth.txt), so that `pytest -m unsloth_cpu` can run.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export PIP_CONSTRAINT="$root/tests/constraints/unsloth.txt"
before=$(python -c 'import torch; print(torch.__version__)')
packages=('unsloth==2026.10.*' 'unsloth_zoo==2026.10.*' triton)
# Where a package it pins cannot be had, the code under test still runs with what it really imports.
pip install --quiet "${packages[@]}" || pip install --quiet --no-deps "${packages[@]}" torchao sentencepiece protobuf
# They are built for CUDA and do not load beside a CPU build of torch.
pip uninstall --quiet --yes torchvision xformers
after=$(python -c 'import torch; print(torch.__version__)')
test "$before" = "$after" || { echo "torch became $after: it must stay $before" >&2; exit 1; }
