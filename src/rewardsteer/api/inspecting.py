"""Rewards of a completion token by token, shown as a page in a notebook."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rewardsteer.api.inputs import as_prompt, as_texts
from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.outputs import write_text

if TYPE_CHECKING:
    from rewardsteer.api.steerer import Steerer
    from rewardsteer.goals.goal_state import GoalState

_HEIGHT = 620  # pixels of the frame in a notebook


@dataclass(frozen=True)
class Inspected:
    """The rewards of a completion, token by token. A notebook shows it like a report's inspector.

    Attributes:
        record: tokens with rewards and similarities; with a policy also its likeliest tokens and
            the changes by guidance.
    """

    record: Inspection

    @property
    def rewards(self) -> np.ndarray:
        """Rewards ``[T]`` of the prefixes that end at each token."""
        return np.array([token.reward for token in self.record.tokens], dtype=float)

    @property
    def tokens(self) -> list[str]:
        """The text that each of the T tokens adds."""
        return [token.text for token in self.record.tokens]

    def to_html(self) -> str:
        """A self-contained HTML page: it needs no other file and no network."""
        from rewardsteer.reports.inspector import inspector
        from rewardsteer.reports.page import page
        from rewardsteer.reports.sections import Section

        return page(
            "Token inspector", "Where along the text the reward rises.",
            [Section("Completion", "completion", [inspector([self.record])])],
        )

    def save(self, path: str | Path) -> None:
        """Write the page; raises `OutputError` where it cannot be written."""
        write_text(Path(path), self.to_html())

    def __str__(self) -> str:
        lines = (f"{reward:+.4f}  {text!r}" for text, reward in
                 zip(self.tokens, self.rewards, strict=True))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        # A frame isolates the page from the notebook, and keeps the page's security policy.
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{escape(self.to_html(), quote=True)}" '
            f'style="width:100%;height:{_HEIGHT}px;border:0" title="Token inspector"></iframe>'
        )


def inspect(
    scorer: Any, prompt: Any, completion: Any, goal: "GoalState | None"
) -> Inspected:
    """See `RewardModel.inspect`."""
    from rewardsteer.evaluation.inspection import inspect_rewards
    from rewardsteer.goals.files import check_goal

    texts = as_texts(prompt, completion)
    if goal is not None:
        check_goal(goal, scorer)
    prompts, responses = scorer.encode(texts.prompts[:1], texts.completions[:1])
    return Inspected(inspect_rewards(scorer, prompts[0], responses[0], goal=goal))


def inspect_guided(steerer: "Steerer", prompt: Any, completion: Any) -> Inspected:
    """See `Steerer.inspect`."""
    from rewardsteer.decoding.generate import build_method
    from rewardsteer.errors import ConfigError
    from rewardsteer.evaluation.inspection import as_read, inspect_completion

    if steerer.engine != "transformers" or not steerer.reward_models:
        raise ConfigError(
            "The inspector reads policy and reward model on the engine 'transformers'; make the "
            "Steerer there, with a reward model."
        )
    scorer, goal = steerer.parts_for(steerer.config)
    method = build_method(steerer.config, scorer, goal)
    row = {"id": "0", "prompt": as_prompt(prompt), "completion": completion}
    ids = as_read(steerer.policy, steerer.tokenizer, scorer, method, steerer.config, row)
    return Inspected(inspect_completion(
        steerer.policy, steerer.tokenizer, scorer, method, *ids, config=steerer.config, goal=goal,
    ))
