#!/usr/bin/env bash
# Reward models on real solutions, SmolLM2-135M-Instruct as the base: one seed of study B.
#
#   runs/smollm2_solutions.sh SEED [OUT]             the first 8 of 30 layers; one CPU core, about an hour
#   SIZE=full runs/smollm2_solutions.sh SEED [OUT]   all layers; about three CPU-hours
#   SIZE=tiny runs/smollm2_solutions.sh SEED [OUT]   the same steps in minutes; a test without meaningful results
#
# A Bradley-Terry reward model and two goal-conditioned ones (the default form and the published one)
# learn from GSM8K solutions by ten models, balanced so that the writer of a solution does not predict
# whether it is correct. They are tested on held-out questions of GSM8K and on SVAMP (out of
# distribution). The seed draws questions, pairs, weights and order. Finished parts are kept: the same
# command continues an interrupted run. Tables over all seeds of OUT:
# python runs/summarise_goal.py OUT baseline goal published.
set -euo pipefail
SEED=${1:?the seed, a number}
OUT=${2:-out/study-b}
SIZE=${SIZE:-small}
HERE=$(dirname "$0")
RUN=$OUT/data-$SEED

case $SIZE in
  tiny) ROWS=8 TEST=8 SHARE=0.002 SVAMP=2 SETTINGS=(optimiser.max_steps=1) PLANS=${PLANS:-baseline goal} ;;
  small)
    ROWS=1000 TEST=60 SHARE=0.04 SVAMP=40 SETTINGS=() PLANS=${PLANS:-baseline goal published}
    LAYERS=8 TARGETS=${TARGETS:-.*_proj} ;;
  full) ROWS=2400 TEST=200 SHARE=0.15 SVAMP=150 SETTINGS=() PLANS=${PLANS:-baseline goal published} ;;
  *) echo "SIZE is tiny, small or full, not $SIZE" >&2; exit 2 ;;
esac
source "$HERE/smollm2_common.sh"

if [ ! -f "$RUN/test/svamp.jsonl" ]; then
  python "$HERE/split_solutions.py" "$RUN" "$SHARE" "$SEED" "$SVAMP" \
    "$DATA/completions/GSM8K_multi.jsonl.gz" "$DATA/gsm8k/example_model_solutions.jsonl.gz" \
    -- "$DATA/completions/SVAMP_multi.jsonl.gz"
  [ "$SIZE" != tiny ] || sed -i '2001,$d' "$RUN/train.jsonl"
fi
if [ ! -f "$RUN/prepared/manifest.json" ]; then
  cat > "$RUN/data.yaml" <<YAML
sources: [{name: graded, path: $RUN/train.jsonl, options: {max_pairs: 6, balance_by: source}}]
max_length: 448
train_rows: $ROWS
test_rows: $TEST
seed: $SEED
YAML
  rewardsteer data prepare "$RUN/data.yaml" --tokenizer "$BASE" --out "$RUN/prepared" --overwrite
fi

for plan in $PLANS; do
  PLACE=$OUT/$plan-$SEED
  [ -f "$PLACE/metrics/metrics.json" ] && continue
  RECIPE=gsm8k/goal OPTIONS=()
  case $plan in
    baseline) RECIPE=gsm8k/baseline ;;
    published) OPTIONS=(phases.0.objective.1.options.form=published phases.0.objective.1.weight=0.5) ;;
  esac
  train "$PLACE" "$RECIPE" "$RUN/prepared" "$SEED" head.init=openrlhf optimiser.learning_rate=1e-3 \
    optimiser.per_device_train_batch_size=8 "${OPTIONS[@]}"
  rewardsteer goal-state --reward-model "$PLACE/model" --data "$RUN/prepared" --overwrite
  rewardsteer score --reward-model "$PLACE/model" --input "$RUN/test" --output "$PLACE/scores" --resume
  COMPARE=()
  [ "$plan" = baseline ] || COMPARE=(--baseline "$OUT/baseline-$SEED/scores")
  rewardsteer evaluate correctness --scores "$PLACE/scores" "${COMPARE[@]}" --out "$PLACE/metrics" --overwrite
done
python "$HERE/summarise_goal.py" "$OUT" $PLANS
