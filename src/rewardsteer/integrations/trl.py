"""A reward function for TRL's GRPO and RLOO trainers.

TRL itself accepts sequence classifiers as reward models, but concatenates prompt and completion and
takes the reward at the last token. This function writes them with the template of training, closes
the completion where training did, and supports any head.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.messages import parse_tools
from rewardsteer.data.sources.turns import read_pair
from rewardsteer.devices import AUTO
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer, score_with_tools

TrlMessages = Sequence[Mapping[str, Any]]


class RewardFunction:
    """Rewards of completions, in the form that TRL calls: ``reward_funcs=RewardFunction.load(…)``.

    TRL's ``reward_weights`` weights several reward functions. Completions cut off at the length
    limit are scored as if they had ended there; TRL's ``mask_truncated_completions`` leaves them
    out of the loss.

    Args:
        scorer: the reward model.
        batch_size: completions per batch; None: as many as ``batch_tokens`` allows, or 64 where the
            reward model only scores texts.
        batch_tokens: tokens per batch, padding included; None: no limit. Ignored where the reward
            model only scores texts.
        name: under which TRL logs the rewards.
    """

    def __init__(
        self, scorer: TextScorer, *, batch_size: int | None = 64, batch_tokens: int | None = None,
        name: str = "rewardsteer",
    ) -> None:
        self.scorer = scorer
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.__name__ = name  # TRL names the columns of its logs by it

    @classmethod
    def load(
        cls, name_or_path: str | Path, *, device: str = AUTO, batch_size: int | None = 64,
        batch_tokens: int | None = None, name: str = "rewardsteer", **options: Any,
    ) -> "RewardFunction":
        """Load from a folder, a hub name or an address; ``options`` as in `load_scorer`."""
        return cls(
            load_scorer(name_or_path, device=device, **options), batch_size=batch_size,
            batch_tokens=batch_tokens, name=name,
        )

    def __call__(
        self, prompts: Sequence[str | TrlMessages], completions: Sequence[str | TrlMessages],
        *, tools: Sequence[Any] | None = None, **_: Any,
    ) -> list[float]:
        """One reward for each completion.

        Args:
            prompts: texts or conversations, one for each completion (repeated where a prompt has
                several).
            completions: texts, or messages that end with the assistant's answer; messages before it
                (tool calls and their results) become part of the prompt.
            tools: the column of that name: functions that the chat template lists, for each
                completion a list of JSON schemas or None.

        Raises:
            DataError: a completion ends with a tool call, or content is not text.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """
        rows = [
            read_pair(prompt, completion, f"Row {number}")
            for number, (prompt, completion) in
            enumerate(zip(prompts, completions, strict=True), start=1)
        ]
        asked, answers = [prompt for prompt, _ in rows], [text for _, text in rows]
        listed = None if tools is None else [
            parse_tools(own, f"Row {number}") for number, own in enumerate(tools, start=1)
        ]
        if isinstance(self.scorer, Scorer):
            rewards = self.scorer.score_ids(
                *self.scorer.encode(asked, answers, tools=listed), batch_size=self.batch_size,
                batch_tokens=self.batch_tokens,
            )
        else:
            rewards = score_with_tools(
                self.scorer, asked, answers, listed or [None] * len(rows),
                batch_size=self.batch_size or 64,
            )
        return [float(reward) for reward in rewards]
