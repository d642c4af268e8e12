"""`distil`: train a vocabulary head (one forward pass per token) to imitate a slower guide."""

import json
from pathlib import Path
from typing import Any

from rewardsteer.api.reward_model import RewardModel
from rewardsteer.configuration import load_config
from rewardsteer.distillation.config import DistilConfig
from rewardsteer.quiet import quiet_calls


@quiet_calls
def distil(
    policy: str | Path, teacher: str | Path, prompts: str | Path | None = None, *,
    output_dir: str | Path, resume: bool = False, overwrite: bool = False, **settings: Any,
) -> RewardModel:
    """Distil a reward model into a vocabulary head, for guidance with ``farma``.

        distil("my-policy", "my-reward-model", "prompts.jsonl", output_dir="out/distilled",
               **{"head.rank": 64, "loss.weight": 2.0})

    Args:
        policy: folder or hub name of the causal language model that will be guided.
        teacher: folder, hub name or address of the reward model.
        prompts: a file as for ``rewardsteer generate``; None with ``records=`` of another run.
        output_dir: folder of the run; the model is written to ``OUTPUT_DIR/model``.
        resume: continue an interrupted run.
        overwrite: replace what is in ``output_dir``.
        settings: of `DistilConfig`, with sections as mappings or dotted names.

    Raises:
        ConfigError: unknown or contradictory settings.
        MismatchError: records of another teacher, or a student with another tokenizer.
        OutputError: ``output_dir`` is not empty.
    """
    from rewardsteer.distillation.run import distil as run

    values: dict[str, Any] = {"policy": str(policy), "teacher": str(teacher)}
    if prompts is not None:
        values["prompts"] = str(prompts)
    values |= {name: one for name, one in settings.items() if "." not in name}
    dotted = [f"{name}={json.dumps(one)}" for name, one in settings.items() if "." in name]
    config = load_config(DistilConfig, values, dotted)
    return RewardModel.from_pretrained(
        run(config, Path(output_dir), resume=resume, overwrite=overwrite)
    )
