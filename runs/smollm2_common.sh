# What both studies on SmolLM2 share; they read it with `source`.
DATA=${DATA:-../shared/data}

# Weights are read in bfloat16 where the hardware computes in it: a CPU that does not takes six times as long as
# with float32. LAYERS= keeps the first layers alone.
if [ -z "${BASE:-}" ]; then
  TYPE=$(python -c 'from rewardsteer.devices import multiplies_bfloat16 as native
print("bfloat16" if native() else "float32")')
  BASE=$(python "$(dirname "${BASH_SOURCE[0]}")/smollm2.py" --dtype "$TYPE" ${LAYERS:+--layers "$LAYERS"})
fi

# Adapters on the upper third of the layers: the others stay as they are, so that nothing is computed
# backwards through them. TARGETS= names other layers, for another base.
train() { # OUT RECIPE PREPARED SEED [SETTING…]
  local out=$1 recipe=$2 prepared=$3 seed=$4
  shift 4
  [ -f "$out/model/rewardsteer.json" ] ||
    rewardsteer train "$recipe" "base_model=$BASE" "prepared=$prepared" data=null "seed=$seed" \
      "lora={rank: 16, target_modules: '${TARGETS:-.*layers\.2[0-9]\..*_proj}'}" \
      optimiser.precision=auto optimiser.gradient_checkpointing=false \
      log.progress=false log.save_steps=0 "${SETTINGS[@]}" "$@" --out "$out" --resume
}
