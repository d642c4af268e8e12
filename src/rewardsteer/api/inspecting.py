"""Rewards of a completion token by token, shown as a page in a notebook."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rewardsteer.api.inputs import as_prompt, as_single
from rewardsteer.api.results import TokenScores
from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.models.text_scorer import require_tokens
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
            "Token inspector", "The reward at every token of a text.",
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


def token_scores(
    scorer: Any, prompt: Any, completion: Any, goal: "GoalState | None"
) -> TokenScores:
    """See `RewardModel.token_scores`."""
    from rewardsteer.goals.files import check_goal

    asked, answer = as_single(prompt, completion)
    # Implicit reward models also have rewards per token.
    if goal is not None or not hasattr(scorer, "token_scores_ids"):
        scorer = require_tokens(scorer, "rewards per token")
    if goal is not None:
        check_goal(goal, scorer)
    prompt_ids, response_ids = scorer.encode([asked], [answer])
    found = scorer.token_scores_ids(prompt_ids, response_ids, goal=goal)[0]
    tokens = [scorer.tokenizer.decode([token]) for token in response_ids[0]]
    return TokenScores(tokens, found.rewards, found.similarities)


def inspect(
    scorer: Any, prompt: Any, completion: Any, goal: "GoalState | None"
) -> Inspected:
    """See `RewardModel.inspect`."""
    from rewardsteer.evaluation.inspection import inspect_rewards
    from rewardsteer.goals.files import check_goal

    asked, answer = as_single(prompt, completion)
    scorer = require_tokens(scorer, "the inspector")
    if goal is not None:
        check_goal(goal, scorer)
    prompts, responses = scorer.encode([asked], [answer])
    return Inspected(inspect_rewards(scorer, prompts[0], responses[0], goal=goal))


def inspect_guided(steerer: "Steerer", prompt: Any, completion: Any) -> Inspected:
    """See `Steerer.inspect`."""
    from rewardsteer.decoding.generate import build_method
    from rewardsteer.errors import ConfigError
    from rewardsteer.evaluation.inspection import as_read, inspect_completion

    if steerer.engine != "transformers" or not steerer.reward_models:
        raise ConfigError(
            "The inspector needs the engine 'transformers' and a reward model; make the Steerer "
            "with both."
        )
    scorer, goal = steerer.parts_for(steerer.config)
    method = build_method(steerer.config, scorer, goal)
    row = {"id": "0", "prompt": as_prompt(prompt), "completion": completion}
    ids = as_read(steerer.policy, steerer.tokenizer, scorer, method, steerer.config, row)
    return Inspected(inspect_completion(
        steerer.policy, steerer.tokenizer, scorer, method, *ids, config=steerer.config, goal=goal,
    ))
