"""rewardsteer checkpoints in reward-bench's runners (allenai/reward-bench, PyPI ``rewardbench``).

    python -m rewardsteer.integrations.reward_bench --model out/bt/model [reward-bench's options]
    python -m rewardsteer.integrations.reward_bench v2 --model out/bt/model …   # RewardBench 2

Its runners write each conversation with the tokenizer's chat template and pass the text to a
pipeline. A rewardsteer template need not be a chat template. The tokenizer therefore gets a chat
template that writes the messages as JSON. The pipeline decodes them and scores them as elsewhere in
this package: template of training, end-of-text where training put it, any head.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewardsteer.errors import ConfigError, DataError
from rewardsteer.models.checkpoint import load_tokenizer, read_card
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import require_tokens
from rewardsteer.records import Message

# Chat template for the runners: writes the conversation without loss.
CARRYING_TEMPLATE = "{{ messages | tojson }}"


class RewardBenchPipeline:
    """A pipeline in the form that reward-bench calls.

    Args:
        scorer: the reward model.
        tokenizer: the runner's own, with `CARRYING_TEMPLATE`; the runner accesses it.
    """

    def __init__(self, scorer: Scorer, tokenizer: Any) -> None:
        self.scorer = scorer
        self.model: Any = scorer.reward_model
        self.tokenizer = tokenizer

    def __call__(self, samples: Sequence[str], *, batch_size: int = 8, **_: Any) -> Tensor:
        """Rewards ``[N]`` (float32, on the CPU) of conversations written with `CARRYING_TEMPLATE`.

        Nothing is truncated: ``max_length`` is ignored, and a conversation longer than the model's
        limit is an error.

        Raises:
            DataError: a sample is not such a conversation, or too long.
        """
        prompts, completions = [], []
        for sample in samples:
            messages = _messages(sample)
            prompt = messages[:-1]
            alone = len(prompt) == 1 and prompt[0].role == "user"
            prompts.append(prompt[0].content if alone else prompt)
            completions.append(messages[-1].content)
        rewards = self.scorer.score(prompts, completions, batch_size=batch_size)
        return torch.from_numpy(rewards).float()


def entry(folder: str | Path) -> dict[str, Any]:
    """The row of reward-bench's ``REWARD_MODEL_CONFIG`` for a checkpoint folder."""
    loaded: list[Scorer] = []

    def build_model(
        _: str, *, device_map: Any = None, torch_dtype: torch.dtype | None = None, **options: Any
    ) -> Any:
        options = {key: options[key] for key in ("attn_implementation",) if key in options}
        scorer = load_scorer(folder, device=_device(device_map), dtype=torch_dtype, **options)
        loaded.append(require_tokens(scorer, "reward-bench's own runner"))
        return loaded[-1].reward_model

    def build_pipeline(_: str, *, model: Any, tokenizer: Any) -> RewardBenchPipeline:
        scorer = loaded[-1]
        assert model is scorer.reward_model, "the runner builds the pipeline on our own model"
        return RewardBenchPipeline(scorer, tokenizer)

    return {
        "model_builder": build_model,
        "pipeline_builder": build_pipeline,
        "quantized": False,
        "custom_dialogue": False,
        "model_type": "Seq. Classifier",
    }


def save_carrying_tokenizer(folder: str | Path, place: str | Path) -> None:
    """Write the checkpoint's tokenizer with `CARRYING_TEMPLATE` to another folder."""
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = CARRYING_TEMPLATE
    tokenizer.save_pretrained(place)


def run(arguments: Sequence[str]) -> None:
    """Run reward-bench's own runner on a checkpoint.

    Args:
        arguments: the runner's, with ``--model``; a leading ``v2`` selects the runner of
            RewardBench 2.

    Raises:
        ConfigError: no model, a tokenizer argument, or reward-bench cannot be imported.
        CheckpointError: the model is not a reward model.
    """
    second = list(arguments[:1]) == ["v2"]
    rest = list(arguments[1:] if second else arguments)
    if "--model" not in rest[:-1] or "--tokenizer" in rest:
        raise ConfigError(
            "Expected a model (--model FOLDER) and no tokenizer (--tokenizer): it is the "
            "checkpoint's."
        )
    folder = rest[rest.index("--model") + 1]
    read_card(Path(folder))
    try:
        from rewardbench import REWARD_MODEL_CONFIG

        if second:
            from scripts.run_v2 import main
        else:
            from rewardbench.rewardbench import main
    except ImportError as error:
        raise ConfigError(
            f"reward-bench cannot be imported: {error}. Its newest source works with transformers "
            "5 (github.com/allenai/reward-bench); release 0.1.4 and older do not."
        ) from error
    REWARD_MODEL_CONFIG[folder] = entry(folder)
    with tempfile.TemporaryDirectory() as place:
        save_carrying_tokenizer(folder, place)
        sys.argv = ["rewardbench", *rest, "--tokenizer", place]
        main()


def _messages(sample: str) -> list[Message]:
    try:
        messages = [Message.model_validate(message) for message in json.loads(sample)]
    except ValueError as error:
        raise DataError(
            "Expected a conversation as JSON messages; give the runner the tokenizer that "
            "save_carrying_tokenizer writes (python -m rewardsteer.integrations.reward_bench "
            "does)."
        ) from error
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise DataError("Expected a conversation of at least two messages, the last the response.")
    return messages


def _device(device_map: Any) -> str:
    """The device of the whole model for the runner's device map: ``auto``, ``cpu``, {"": index}."""
    if isinstance(device_map, str) and device_map != "auto":
        return device_map
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{device_map['']}" if isinstance(device_map, dict) else "cuda"


if __name__ == "__main__":
    from rewardsteer.errors import RewardsteerError

    try:
        run(sys.argv[1:])
    except RewardsteerError as error:
        sys.exit(f"error: {error}")
