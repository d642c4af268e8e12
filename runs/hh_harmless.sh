#!/usr/bin/env bash
# Anthropic HH, harmless subset: train a policy, Bradley-Terry and FaRMA reward models; compare
# guided generation.
#
#   runs/hh_harmless.sh [OUT]              small: everything from scratch, minutes on a laptop CPU
#   SIZE=full runs/hh_harmless.sh [OUT]    published: pythia-2.8b-hh-sft on Dahoas/static-hh, GPUs
#
# DATA is hh_rlhf_harmless_base_test.jsonl.gz (2,312 human comparisons), TOKENIZER the GPT-NeoX
# tokenizer.json[.gz]; neither is copied.
set -euo pipefail
OUT=${1:-out/hh}
SEED=${SEED:-0}
SIZE=${SIZE:-small}

if [ "$SIZE" = full ]; then
  POLICY=lomahony/eleuther-pythia2.8b-hh-sft
  LAUNCH="accelerate launch --config_file launch/zero2.yaml -m rewardsteer"
  $LAUNCH train hh/bt "seed=$SEED" --out "$OUT/bt" --resume
  $LAUNCH train hh/farma "seed=$SEED" --out "$OUT/farma" --resume
  PREPARED=$OUT/bt/data
  LIMIT=100
  TOKENS=128
  DEVICE=cuda
else
  DATA=${DATA:-../shared/data/preference/hh_rlhf_harmless_base_test.jsonl.gz}
  TOKENIZER=${TOKENIZER:-../shared/data/tokenizers/gpt-neox-20b/tokenizer.json.gz}
  POLICY=$OUT/policy/model
  PREPARED=$OUT/data
  LIMIT=60
  TOKENS=32
  DEVICE=cpu
  mkdir -p "$OUT"
  python "$(dirname "$0")/tokenizer.py" "$TOKENIZER" "$OUT/tokenizer"
  rewardsteer data prepare hh --path "$DATA" --tokenizer "$OUT/tokenizer" --out "$PREPARED" --overwrite \
    max_length=224 test_fraction=0.2 "seed=$SEED"
  SMALL="{hidden_size: 128, intermediate_size: 512, num_hidden_layers: 3, num_attention_heads: 4, max_position_embeddings: 512}"
  rewardsteer train-policy --data "$PREPARED" --tokenizer "$OUT/tokenizer" --out "$OUT/policy" --overwrite \
    architecture.model_type=gpt_neox "architecture.options=$SMALL" "seed=$SEED" \
    optimiser.learning_rate=1e-3 optimiser.per_device_train_batch_size=8 optimiser.num_train_epochs=2 optimiser.precision=bf16 optimiser.lr_scheduler_type=cosine log.progress=false
  COMMON=("base_model=$POLICY" "prepared=$PREPARED" "seed=$SEED" optimiser.learning_rate=3e-4 optimiser.per_device_train_batch_size=16
    optimiser.gradient_accumulation_steps=1 optimiser.precision=fp32 optimiser.gradient_checkpointing=false log.save_steps=0 log.progress=false)
  rewardsteer train hh/bt "${COMMON[@]}" optimiser.num_train_epochs=2 --out "$OUT/bt" --overwrite
  # Three rounds instead of the published seven.
  rewardsteer train hh/farma "${COMMON[@]}" rounds=3 --out "$OUT/farma" --overwrite
fi

for MODEL in bt farma; do
  rewardsteer evaluate preference --reward-model "$OUT/$MODEL/model" --data "$PREPARED" \
    --out "$OUT/preference-$MODEL" --device "$DEVICE" --overwrite
done

cat > "$OUT/methods.yaml" <<YAML
none: {method: none, top_k: 10, max_new_tokens: $TOKENS, batch_size: 16, seed: $SEED}
none T=0.5: {method: none, top_k: 10, temperature: 0.5, max_new_tokens: $TOKENS, batch_size: 16, seed: $SEED}
best_of_8: {method: best_of_n, n: 8, top_k: 10, max_new_tokens: $TOKENS, batch_size: 16, seed: $SEED, reward_model: $OUT/bt/model}
args: {method: args, weight: 1.0, top_k: 10, max_new_tokens: $TOKENS, batch_size: 16, seed: $SEED, reward_model: $OUT/bt/model}
farma: {method: farma, weight: 1.0, top_k: 10, max_new_tokens: $TOKENS, batch_size: 16, seed: $SEED, reward_model: $OUT/farma/model}
YAML
python - "$PREPARED" "$OUT/prompts.jsonl" <<'PYTHON'
import json, sys
from pathlib import Path
from rewardsteer.data.store import load_set

prompts = dict.fromkeys(load_set(Path(sys.argv[1]), "test", "full")["prompt"])
lines = [json.dumps({"id": str(i), "prompt": prompt}) for i, prompt in enumerate(prompts)]
Path(sys.argv[2]).write_text("\n".join(lines) + "\n")
PYTHON
rewardsteer evaluate generation --model "$POLICY" --prompts "$OUT/prompts.jsonl" --limit "$LIMIT" \
  --methods "$OUT/methods.yaml" --judge "$OUT/bt/model" --out "$OUT/generation" --device "$DEVICE" --overwrite
rewardsteer report "$OUT/generation" --out "$OUT/report.html"
