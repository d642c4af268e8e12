#!/usr/bin/env bash
# Guidance on a pretrained chat model: one seed of study A.
#
#   runs/smollm2_guidance.sh SEED [OUT]             2 CPU cores, about three CPU-hours
#   SIZE=tiny runs/smollm2_guidance.sh SEED [OUT]   the same steps in minutes; its figures mean nothing
#
# SmolLM2-135M-Instruct is the policy and the base of every reward model. Guides learn from some
# preference pairs, the judge (a plain reward model) from others with another seed; prompts of both
# are apart from those that are answered. What is finished is kept: the same command goes on after
# a kill. A table over all seeds: rewardsteer evaluate runs OUT/seed-*/generation --out OUT/table.
set -euo pipefail
SEED=${1:?the seed, a number}
OUT=${2:-out/study-a}
SIZE=${SIZE:-small}
HERE=$(dirname "$0")
DATA=${DATA:-../shared/data}
[ -n "${POLICY:-}" ] || POLICY=$(python "$HERE/smollm2.py")
RUN=$OUT/seed-$SEED

case $SIZE in
  tiny) GUIDE=8 JUDGE=8 PROMPTS=2 TOKENS=4 SAMPLES=2 WEIGHTS=1 SETTINGS=(optimiser.max_steps=1) ROUNDS=1 KL=0 ;;
  small) GUIDE=1200 JUDGE=1200 PROMPTS=60 TOKENS=48 SAMPLES=8 WEIGHTS=0.5,1,2 SETTINGS=() ROUNDS=2 KL=20 ;;
  *) echo "SIZE is tiny or small, not $SIZE" >&2; exit 2 ;;
esac

python "$HERE/split_preferences.py" "$DATA" "$RUN" "$SEED" "$GUIDE" "$JUDGE" "$PROMPTS"
for part in guide judge; do
  [ -f "$RUN/data/$part/manifest.json" ] ||
    rewardsteer data prepare pairs --path "$RUN/$part" --tokenizer "$POLICY" --out "$RUN/data/$part" --overwrite \
      max_length=384 "seed=$SEED"
done

# Adapters on the upper third of the layers: the others stay as they are, so that nothing is computed
# backwards through them.
UPPER='lora={rank: 16, target_modules: ".*layers\\.2[0-9]\\..*_proj"}'
train() { # NAME RECIPE PART SEED [SETTING…]
  local name=$1 recipe=$2 part=$3 seed=$4
  shift 4
  [ -f "$RUN/$name/model/rewardsteer.json" ] ||
    rewardsteer train "$recipe" "base_model=$POLICY" "prepared=$RUN/data/$part" "seed=$seed" "$UPPER" \
      optimiser.learning_rate=2e-4 optimiser.per_device_train_batch_size=16 optimiser.precision=bf16 \
      optimiser.gradient_checkpointing=false log.progress=false log.save_steps=0 \
      "${SETTINGS[@]}" "$@" --out "$RUN/$name" --resume
}
train judge pairs/bt judge $((1000 + SEED))
train bt pairs/bt guide "$SEED"
train pargs pairs/pargs guide "$SEED"
train genarm pairs/genarm guide "$SEED"
train farma pairs/farma guide "$SEED" "rounds=$ROUNDS"
# One update that moves nothing: the language model's own head, as FaRMA starts from it.
train untrained pairs/farma guide "$SEED" rounds=1 optimiser.max_steps=1 optimiser.learning_rate=1e-12

ALL="max_new_tokens: $TOKENS, batch_size: 20, seed: $SEED"
cat > "$RUN/methods.yaml" <<YAML
none: {method: none, $ALL}
none T=0.5: {method: none, temperature: 0.5, $ALL}
none greedy: {method: none, temperature: 0, $ALL}
untrained head: {method: farma, reward_model: $RUN/untrained/model, $ALL}
best of n: {method: best_of_n, n: $SAMPLES, reward_model: $RUN/bt/model, $ALL}
args: {method: args, top_k: 10, reward_model: $RUN/bt/model, $ALL}
pargs: {method: pargs, top_k: 10, reward_model: $RUN/pargs/model, $ALL}
genarm: {method: genarm, reward_model: $RUN/genarm/model, $ALL}
farma: {method: farma, reward_model: $RUN/farma/model, $ALL}
cards: {method: cards, reward_model: $RUN/bt/model, $ALL}
speculative rejection: {method: speculative_rejection, n: $SAMPLES, reward_model: $RUN/bt/model, $ALL}
beam: {method: beam, reward_model: $RUN/pargs/model, $ALL}
YAML
rewardsteer evaluate generation --model "$POLICY" --prompts "$RUN/prompts.jsonl" --methods "$RUN/methods.yaml" \
  --weights "$WEIGHTS" --kl-prompts "$KL" --judge "$RUN/judge/model" --out "$RUN/generation" --resume
rewardsteer report "$RUN/generation" --out "$RUN/report.html"
