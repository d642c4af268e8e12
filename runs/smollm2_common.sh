# Shared by both studies on SmolLM2, which load it with `source`.
DATA=${DATA:-../shared/data}

# Weights are loaded in bfloat16 if the hardware computes in it; other CPUs take six times as long as with
# float32. LAYERS= keeps only the first layers.
if [ -z "${BASE:-}" ]; then
  TYPE=$(python -c 'from rewardsteer.devices import multiplies_bfloat16 as native
print("bfloat16" if native() else "float32")')
  BASE=$(python "$(dirname "${BASH_SOURCE[0]}")/smollm2.py" --dtype "$TYPE" ${LAYERS:+--layers "$LAYERS"})
fi

# Adapters on the upper third of the layers: the other layers stay frozen, so the backward pass stops
# before them. TARGETS= names other layers, for another base model.
train() { # OUT RECIPE PREPARED SEED [SETTING…]
  local out=$1 recipe=$2 prepared=$3 seed=$4
  shift 4
  [ -f "$out/model/rewardsteer.json" ] ||
    rewardsteer train "$recipe" "base_model=$BASE" "prepared=$prepared" data=null "seed=$seed" \
      "lora={rank: 16, target_modules: '${TARGETS:-.*layers\.2[0-9]\..*_proj}'}" \
      optimiser.precision=auto optimiser.gradient_checkpointing=false \
      log.progress=false log.save_steps=0 "${SETTINGS[@]}" "$@" --out "$out" --resume
}
