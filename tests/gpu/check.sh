#!/usr/bin/env bash
# Everything that a card has to show, in under eight minutes: tests/gpu/check.sh [OUT]
#
# Not yet run on a card. It needs no network: the package installed with what it depends on (or wheels named by
# RLVR_LITE_WHEELS, a folder), and a CUDA build of PyTorch. Each part goes on where another failed; the last line says how
# many did.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-gpu-check}
mkdir -p "$out"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
if [ -n "${RLVR_LITE_WHEELS:-}" ]; then
  pip install --no-index --no-deps --find-links "$RLVR_LITE_WHEELS" -q "$RLVR_LITE_WHEELS"/*.whl
fi
failed=0
part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  timeout "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.log" && local said=done || { local said="failed ($?)"; failed=$((failed + 1)); }
  echo "$name: $said, $((SECONDS - began)) s"
}
part doctor 200 python -m rlvr_lite doctor -q
part base 40 python -m tests.gpu.random_base "$out/base"
part plan 60 python -m rlvr_lite plan "$out/base" lora --precision nf4 --measure --out "$out/plan.json" \
  --prompts-per-step 2 --group-size 8 --max-completion-length 256 --micro-batch 4
for method in lora dora; do
  part "$method" 90 python -m rlvr_lite train "$method" --base "$out/base" --precision nf4 --task chain-sum --smoke -q \
    --steps 2 --max-completion-length 64 --eval-problems 0 --out "$out/run-$method"
done
cat "$out/doctor.txt"
echo "$failed parts failed; everything is in $out"
exit $((failed > 0))
