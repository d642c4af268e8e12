"""A reward function for TRL's GRPO and RLOO trainers.

TRL takes reward models that are sequence classifiers by itself, but writes prompt and completion
one after the other as they are and takes the reward at the last token. This one writes them
with the template of training, closes the completion where training did, and takes any head.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardsteer.devices import AUTO
from rewardsteer.errors import DataError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Message, Prompt

TrlMessages = Sequence[Mapping[str, Any]]


class RewardFunction:
    """Rewards of completions, in the form that TRL calls: ``reward_funcs=RewardFunction.load(…)``.

    Weights of several reward functions are TRL's own ``reward_weights``. Completions that ran into
    the length limit are scored as if they had ended there; ``mask_truncated_completions`` of TRL
    leaves them out of the loss.

    Args:
        scorer: the reward model.
        batch_size: completions read together; None: as many as ``batch_tokens`` allows, or 64
            where the reward model scores texts alone.
        batch_tokens: tokens read together, padding included; None: no limit. It has no effect on a
            reward model that scores texts alone.
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
    def load(cls, folder: str | Path, *, device: str = AUTO, **options: Any) -> "RewardFunction":
        """From a checkpoint folder; ``options`` go to the constructor.

        Raises:
            CheckpointError: missing or damaged folder, or not a reward model.
        """
        return cls(load_scorer(folder, device=device), **options)

    def __call__(
        self, prompts: Sequence[str | TrlMessages], completions: Sequence[str | TrlMessages],
        **_: Any,
    ) -> list[float]:
        """One reward for each completion.

        Args:
            prompts: texts or conversations, one for each completion (repeated where a prompt has
                several).
            completions: texts, or one assistant message each.

        Raises:
            DataError: a completion of several messages (tool calls), or content that is no text.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """
        asked = [_prompt(prompt) for prompt in prompts]
        answers = [_completion(completion) for completion in completions]
        if isinstance(self.scorer, Scorer):
            rewards = self.scorer.score_ids(
                *self.scorer.encode(asked, answers), batch_size=self.batch_size,
                batch_tokens=self.batch_tokens,
            )
        else:
            rewards = self.scorer.score(asked, answers, batch_size=self.batch_size or 64)
        return [float(reward) for reward in rewards]


def _prompt(prompt: str | TrlMessages) -> Prompt:
    if isinstance(prompt, str):
        return prompt
    return [Message(role=message["role"], content=_text(message)) for message in prompt]


def _completion(completion: str | TrlMessages) -> str:
    if isinstance(completion, str):
        return completion
    if len(completion) != 1 or completion[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in completion) or "none"
        raise DataError(
            f"Expected completions of one assistant message, got the roles {roles}; reward models "
            "read one response. Write a reward function of your own for conversations with tools."
        )
    return _text(completion[0])


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    if not isinstance(content, str):
        raise DataError(
            f"Expected the content of a message as text, got {type(content).__name__}; reward "
            "models read text alone."
        )
    return content
