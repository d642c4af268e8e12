#!/usr/bin/env bash
# Compare a baseline with goal-conditioned reward models on real solutions, with equal training and
# several seeds: AUROC on GSM8K (in distribution) and SVAMP (out of distribution), votes, filtering.
#
#   runs/gsm8k_goal.sh [OUT]            a small backbone from scratch, on a laptop CPU
#   SIZE=full runs/gsm8k_goal.sh [OUT]  Llama-3.2-1B-Instruct as the backbone, on a GPU
#
# DATA is a folder with completions/{GSM8K,SVAMP}_multi.jsonl.gz (18 completions per question, MIT,
# veronica320/Faithful-COT) and gsm8k/example_model_solutions.jsonl.gz (4 models, MIT,
# openai/grade-school-math). Whole questions are held out. PLANS names the models to train: baseline,
# goal and other forms of the objective.
set -euo pipefail
OUT=${1:-out/gsm8k-goal}
DATA=${DATA:-../shared/data}
SEEDS=${SEEDS:-0 1 2}
PLANS=${PLANS:-baseline goal}
HERE=$(dirname "$0")
mkdir -p "$OUT"

if [ ! -f "$OUT/test/svamp.jsonl" ]; then
  python "$HERE/split_solutions.py" "$OUT" 0.35 0 "${SVAMP_QUESTIONS:-500}" \
    "$DATA/completions/GSM8K_multi.jsonl.gz" "$DATA/gsm8k/example_model_solutions.jsonl.gz" \
    -- "$DATA/completions/SVAMP_multi.jsonl.gz"
fi
if [ "${SIZE:-small}" = full ]; then
  BASE=meta-llama/Llama-3.2-1B-Instruct TOKENIZER=$BASE DEVICE=cuda
  SETTINGS=(optimiser.learning_rate=1e-5 optimiser.precision=bf16 data.max_length=1024)
else
  BASE=$OUT/policy/model TOKENIZER=$OUT/tokenizer DEVICE=cpu SETTINGS=("phases.0.rows=${ROWS:-3200}")
  [ -d "$TOKENIZER" ] || python "$HERE/train_tokenizer.py" 4096 "$TOKENIZER" "$OUT/train.jsonl"
fi
if [ ! -d "$OUT/data" ]; then
  cat > "$OUT/data.yaml" <<YAML
sources: [{name: graded, path: $OUT/train.jsonl, options: {max_pairs: 6}}]
template: {prompt: "{prompt}\n"}
max_length: ${MAX_LENGTH:-384}
YAML
  rewardsteer data prepare "$OUT/data.yaml" --tokenizer "$TOKENIZER" --out "$OUT/data"
fi
if [ "$BASE" = "$OUT/policy/model" ] && [ ! -d "$BASE" ]; then
  SMALL="{hidden_size: 128, intermediate_size: 512, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 4, max_position_embeddings: 640}"
  rewardsteer train-policy --data "$OUT/data" --tokenizer "$TOKENIZER" --out "$OUT/policy" --overwrite \
    architecture.model_type=llama "architecture.options=$SMALL" \
    optimiser.learning_rate=2e-3 optimiser.per_device_train_batch_size=16 optimiser.max_steps=${POLICY_STEPS:-500} \
    optimiser.lr_scheduler_type=cosine log.progress=false log.logging_steps=100
fi
for seed in $SEEDS; do
  for plan in $PLANS; do
    RUN=$OUT/$plan-$seed
    [ -f "$RUN/metrics/metrics.json" ] && continue
    RECIPE=gsm8k/goal OPTIONS=()
    case $plan in
      baseline) RECIPE=gsm8k/baseline ;;
      mlp) OPTIONS=(head.layers=mlp) ;;
      future) OPTIONS=(phases.0.objective.1.options.form=future) ;;
      published) OPTIONS=(phases.0.objective.1.options.form=published phases.0.objective.1.weight=0.5) ;;
      average) OPTIONS=(phases.0.objective.1.options.strategy=cosine_avg) ;;
      weight-*) OPTIONS=("phases.0.objective.1.weight=${plan#weight-}") ;;
    esac
    rewardsteer train $RECIPE "base_model=$BASE" "prepared=$OUT/data" "seed=$seed" log.progress=false log.logging_steps=50 \
      "${SETTINGS[@]}" "${OPTIONS[@]}" --out "$RUN" --overwrite
    rewardsteer goal-state --reward-model "$RUN/model" --data "$OUT/data" --device "$DEVICE" --overwrite
    rewardsteer score --reward-model "$RUN/model" --input "$OUT/test" --output "$RUN/scores" --device "$DEVICE" --overwrite
    COMPARE=()
    [ "$plan" = baseline ] || COMPARE=(--baseline "$OUT/baseline-$seed/scores")
    rewardsteer evaluate correctness --scores "$RUN/scores" "${COMPARE[@]}" --out "$RUN/metrics" --overwrite
  done
done
python "$HERE/summarise_goal.py" "$OUT" $PLANS
