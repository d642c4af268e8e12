"""Goal beam: steps ranked by likelihood and by nearness to a goal state (arXiv 2407.13887)."""

import math
from collections.abc import Sequence
from typing import Literal

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guide import Judged, Reads, Rewarder
from rewardsteer.errors import ConfigError, NonFiniteError
from rewardsteer.goals.files import require_goal
from rewardsteer.goals.goal_state import GoalState


class GoalBeam:
    """Step guide: score(y) = log p_LM(y | x) / |y| + w · cos(h(x, y), goal).

    h is the reward model's state of the response's last token, read exactly as it was generated.
    The likelihood is that of temperature 1 over the whole vocabulary, however tokens are drawn. A
    response with a token that the reward model does not know gets the least cosine, -1. Weight 0
    reads nothing.

    Args:
        scorer: a reward model with any head.
        config: ``weight``, ``beam``, ``branches``, ``step_separator``, ``step_tokens``,
            ``max_steps``, ``mode`` and ``batch_size`` are used.
        goal: a goal state of this reward model.

    Raises:
        MismatchError: no reward model, no goal state, or one of another reward model.
        ConfigError: several candidates, but greedy.
    """

    name = "goal_beam"
    level: Literal["step"] = "step"
    needs = "any"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None
    wants_goal = True

    def __init__(
        self, scorer: Rewarder, config: DecodingConfig, goal: GoalState | None = None
    ) -> None:
        check_scorer(self.name, type(self), scorer)
        goal = require_goal(self.name, goal, scorer)
        if config.mode == "greedy" and config.beam * config.branches > 1:
            raise ConfigError(
                f"The method {self.name!r} draws beam × branches = {config.beam} × "
                f"{config.branches} candidates, but greedy decoding gives the same one each time; "
                "use mode 'sample', or beam = 1 and branches = 1."
            )
        self.scorer, self.goal = scorer, goal
        self.beam, self.branches = config.beam, config.branches
        self.separator, self.step_tokens = config.step_separator, config.step_tokens
        self.max_steps = config.max_steps
        self._weight, self._batch_size = config.weight, config.batch_size

    def judge(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]],
        log_probabilities: Sequence[float], names: Sequence[str],
    ) -> list[Judged]:
        """Scores of candidates; with an error where a reward or similarity is no number."""
        likely = [
            total / len(response)
            for total, response in zip(log_probabilities, responses, strict=True)
        ]
        if self._weight == 0:
            return [Judged(score, Reads()) for score in likely]
        similar: list[float | NonFiniteError] = [-1.0] * len(responses)
        known = self._known(responses)
        for row, value in zip(known, self._similarities(prompts, responses, known, names),
                              strict=True):
            similar[row] = value
        reads = [Reads() for _ in responses]
        for row in known:
            reads[row] = Reads(1, 1, len(prompts[row]) + len(responses[row]))
        return [
            Judged(-math.inf, read, value) if isinstance(value, NonFiniteError)
            else Judged(score + self._weight * value, read)
            for score, value, read in zip(likely, similar, reads, strict=True)
        ]

    def _known(self, responses: Sequence[Sequence[int]]) -> list[int]:
        size = self.scorer.vocabulary_size
        return [row for row, response in enumerate(responses) if max(response) < size]

    def _similarities(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]],
        rows: Sequence[int], names: Sequence[str],
    ) -> list[float | NonFiniteError]:
        """Cosines of the last tokens' states of some rows to the goal, or why there is none."""
        try:
            read = self.scorer.token_scores_ids(
                [prompts[row] for row in rows], [responses[row] for row in rows],
                batch_size=self._batch_size, goal=self.goal,
            )
        except NonFiniteError as error:
            if len(rows) > 1:
                alone = [self._similarities(prompts, responses, [row], names) for row in rows]
                return [value for [value] in alone]
            return [NonFiniteError(f"While ranking steps of {names[rows[0]]}: {error}")]
        values = [float(one.similarities[-1]) for one in read]
        return [
            value if math.isfinite(value) else NonFiniteError(
                f"The reward model gave NaN or infinite states while ranking steps of {names[row]};"
                " the checkpoint may be damaged, or its values overflow in this dtype: try float32."
            )
            for row, value in zip(rows, values, strict=True)
        ]
