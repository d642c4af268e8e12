#!/usr/bin/env bash
# Guidance on a pretrained chat model: one seed of study A.
#
#   runs/smollm2_guidance.sh SEED [OUT]             one CPU core, about an hour
#   SIZE=full runs/smollm2_guidance.sh SEED [OUT]   about three CPU-hours
#   SIZE=tiny runs/smollm2_guidance.sh SEED [OUT]   the same steps in minutes; a test without meaningful results
#
# SmolLM2-135M-Instruct is the policy and the base of every reward model. Guides learn from some
# preference pairs, the judge (a Bradley-Terry reward model) from others with another seed. The prompts
# that are answered are held out from both. Finished parts are kept: the same command continues an
# interrupted run. A table over all seeds: rewardsteer evaluate runs OUT/seed-*/generation --out OUT/table.
set -euo pipefail
SEED=${1:?the seed, a number}
OUT=${2:-out/study-a}
SIZE=${SIZE:-small}
HERE=$(dirname "$0")
source "$HERE/smollm2_common.sh"
RUN=$OUT/seed-$SEED

case $SIZE in
  tiny) GUIDE=8 JUDGE=8 LONGEST=60 PROMPTS=2 TOKENS=4 SAMPLES=2 WEIGHTS=1 SETTINGS=(optimiser.max_steps=1) ROUNDS=1 KL=0 ;;
  small) GUIDE=360 JUDGE=720 LONGEST=60 PROMPTS=40 TOKENS=32 SAMPLES=8 WEIGHTS=1 SETTINGS=() ROUNDS=2 KL=10 ;;
  full) GUIDE=640 JUDGE=1280 LONGEST=120 PROMPTS=100 TOKENS=64 SAMPLES=16 WEIGHTS=0.5,1,3 SETTINGS=() ROUNDS=2 KL=24 ;;
  *) echo "SIZE is tiny, small or full, not $SIZE" >&2; exit 2 ;;
esac

python "$HERE/split_preferences.py" "$DATA" "$RUN" "$SEED" "$GUIDE" "$JUDGE" "$PROMPTS" "$LONGEST"
for part in guide judge; do
  [ -f "$RUN/data/$part/manifest.json" ] ||
    rewardsteer data prepare pairs --path "$RUN/$part" --tokenizer "$BASE" --out "$RUN/data/$part" --overwrite \
      max_length=384 "seed=$SEED"
done

learn() { # NAME RECIPE PART SEED [SETTING…]
  train "$RUN/$1" "pairs/$2" "$RUN/data/$3" "$4" optimiser.learning_rate=5e-4 optimiser.per_device_train_batch_size=8 "${@:5}"
}
learn judge bt judge $((1000 + SEED))
learn bt bt guide "$SEED"
learn pargs pargs guide "$SEED"
learn genarm genarm guide "$SEED"
learn farma farma guide "$SEED" "rounds=$ROUNDS"
# One update without effect: the head stays the language-model head, FaRMA's start.
learn untrained farma guide "$SEED" rounds=1 optimiser.max_steps=1 optimiser.learning_rate=1e-12

# PARGS's guidance, distilled into a low-rank head on the policy's own states: no second model.
[ -f "$RUN/distilled/model/rewardsteer.json" ] ||
  rewardsteer distil pairs/distil "policy=$BASE" "teacher=$RUN/pargs/model" "prompts=$RUN/samples.jsonl" \
    sampling.per_prompt=1 "sampling.max_new_tokens=$TOKENS" candidates.top_k=10 candidates.positions=8 \
    "seed=$SEED" optimiser.precision=auto "${SETTINGS[@]}" --out "$RUN/distilled" --resume

# CARDS' target is slightly above the policy's own reward: the mean of the better of two samples.
[ -f "$RUN/samples-target" ] || {
  rewardsteer generate --model "$BASE" --method best_of_n --n 2 --reward-model "$RUN/bt/model" --batch-size 16 \
    --prompts "$RUN/samples.jsonl" --max-new-tokens "$TOKENS" --seed "$SEED" --output "$RUN/samples-best.jsonl" --overwrite
  python -c 'import json, sys; rewards = [json.loads(line)["reward"] for line in open(sys.argv[1])]
print(sum(rewards) / len(rewards))' "$RUN/samples-best.jsonl" > "$RUN/samples-target"
}

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
farma gated: {method: farma, gate: entropy, gate_share: 0.3, reward_model: $RUN/farma/model, $ALL}
farma random gate: {method: farma, gate: random, gate_share: 0.3, reward_model: $RUN/farma/model, $ALL}
distilled: {method: farma, reward_model: $RUN/distilled/model, $ALL}
cards: {method: cards, reward_target: $(cat "$RUN/samples-target"), reward_model: $RUN/bt/model, $ALL}
speculative rejection: {method: speculative_rejection, n: $SAMPLES, reward_model: $RUN/bt/model, $ALL}
beam: {method: beam, reward_model: $RUN/pargs/model, $ALL}
YAML
rewardsteer evaluate generation --model "$BASE" --prompts "$RUN/prompts.jsonl" --methods "$RUN/methods.yaml" \
  --weights "$WEIGHTS" --kl-prompts "$KL" --judge "$RUN/judge/model" --out "$RUN/generation" --resume
rewardsteer report "$RUN/generation" --out "$RUN/report.html"
