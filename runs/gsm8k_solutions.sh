#!/usr/bin/env bash
# Train a reward model on pairs of GSM8K solutions and measure its accuracy on held-out questions.
#
#   runs/gsm8k_solutions.sh [OUT]              small: a backbone from scratch, minutes on a laptop CPU
#   SIZE=full runs/gsm8k_solutions.sh [OUT]    Llama-3.2-1B-Instruct as the backbone, on a GPU
#
# DATA holds questions with graded completions: 1,319 questions × 18 completions (GSM8K_multi), or
# OpenAI's example_model_solutions. Whole questions are held out.
set -euo pipefail
OUT=${1:-out/gsm8k}
SEED=${SEED:-0}
DATA=${DATA:-../shared/data/completions/GSM8K_multi.jsonl.gz}
mkdir -p "$OUT"

if [ "${SIZE:-small}" = full ]; then
  TOKENIZER=meta-llama/Llama-3.2-1B-Instruct
  BASE=$TOKENIZER
  LIMIT=
  SETTINGS=(optimiser.learning_rate=5e-6 optimiser.per_device_train_batch_size=8 optimiser.gradient_accumulation_steps=8 optimiser.precision=bf16 optimiser.num_train_epochs=1)
  DEVICE=cuda
else
  TOKENIZER=$OUT/tokenizer
  BASE=$OUT/policy/model
  LIMIT=train_rows=2400
  SETTINGS=(optimiser.learning_rate=3e-4 optimiser.per_device_train_batch_size=16 optimiser.num_train_epochs=2 log.progress=false)
  DEVICE=cpu
  python "$(dirname "$0")/tokenizer.py" "${TOKENIZER_JSON:-../shared/data/tokenizers/gpt-neox-20b/tokenizer.json.gz}" "$TOKENIZER"
fi
cat > "$OUT/data.yaml" <<YAML
sources: [{name: graded, path: $DATA}]
template: {prompt: "{prompt}\n"}
max_length: 256
test_fraction: 0.2
YAML
rewardsteer data prepare "$OUT/data.yaml" --tokenizer "$TOKENIZER" --out "$OUT/data" --overwrite "seed=$SEED" $LIMIT
if [ "$BASE" = "$OUT/policy/model" ]; then
  SMALL="{hidden_size: 128, intermediate_size: 512, num_hidden_layers: 3, num_attention_heads: 4, max_position_embeddings: 512}"
  rewardsteer train-policy --data "$OUT/data" --tokenizer "$TOKENIZER" --out "$OUT/policy" --overwrite \
    architecture.model_type=gpt_neox "architecture.options=$SMALL" "seed=$SEED" \
    optimiser.learning_rate=1e-3 optimiser.per_device_train_batch_size=8 optimiser.max_steps=150 optimiser.precision=bf16 log.progress=false
fi
cat > "$OUT/bt.yaml" <<YAML
base_model: $BASE
prepared: $OUT/data
head: {kind: scalar}
phases:
  - objective: [{name: bradley_terry}]
YAML
rewardsteer train "$OUT/bt.yaml" "seed=$SEED" "${SETTINGS[@]}" --out "$OUT/bt" --overwrite
rewardsteer evaluate preference --reward-model "$OUT/bt/model" --data "$OUT/data" --out "$OUT/preference" --device "$DEVICE" --overwrite
