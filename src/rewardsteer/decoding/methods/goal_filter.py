"""Goal filter: a vote over samples that stay near a goal state; others are dropped while they are
written (arXiv 2407.13887), and no more are drawn once the vote is decided."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rewardsteer.data.answers import canonical_answer, extract_answer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.dropping import watcher
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guide import Prefix, Rewarder, stop_of
from rewardsteer.decoding.reviews import ReviewSession, is_number
from rewardsteer.decoding.sampling import require_draws
from rewardsteer.decoding.votes import majority_stands, window_agrees, winner
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.goals.calibration import PositionCalibration, load_calibration
from rewardsteer.goals.files import require_goal
from rewardsteer.goals.goal_state import GoalState


class GoalFilter:
    """Group guide: up to n samples, of which those are dropped whose state strays from the goal;
    the answer is the first sample with the majority's final answer among those that are left.

    Where all n samples are dropped all are kept (published): they go on from where they were, and
    all vote. Rules of dropping: `rewardsteer.decoding.dropping`. With the rule ``none`` the reward
    model reads nothing, and what is left is plain voting, ESC or adaptive consistency.

    Args:
        scorer: a reward model with any head.
        config: ``n``, ``drop_*``, ``calibration``, ``vote_*`` and ``mode`` are used.
        goal: a goal state of this reward model, of one that does not depend on the prompt.

    Raises:
        MismatchError: no reward model, no goal state, or one of another reward model or kind; a
            calibration of another reward model.
        ConfigError: several samples, but greedy; the rule ``probability`` without a calibration.
        DataError: the calibration cannot be read.
    """

    name = "goal_filter"
    level: Literal["group"] = "group"
    needs = "any"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None
    wants_goal = True

    def __init__(
        self, scorer: Rewarder, config: DecodingConfig, goal: GoalState | None = None
    ) -> None:
        check_scorer(self.name, type(self), scorer)
        goal = require_goal(self.name, goal, scorer)
        if goal.keys is not None:
            raise MismatchError(
                f"The goal {goal.name!r} is of kind 'nearest', which depends on the prompt; the "
                f"method {self.name!r} needs one of kind mean, contrast or clusters."
            )
        require_draws(self.name, config)
        self.scorer, self.goal, self.samples = scorer, goal, config.n
        self._config, self._calibration = config, _calibration(config, scorer)

    def open(self) -> "FilterSession":
        """Begin a batch."""
        return FilterSession(self.scorer, self.goal)

    def plan(self, text_of: Callable[[Any], str]) -> "VotePlan":
        """Begin with a prompt."""
        return VotePlan(
            self._config, lambda row: canonical_answer(extract_answer(text_of(row))),
            lambda: watcher(self._config, self._calibration),
        )


def _calibration(config: DecodingConfig, scorer: Any) -> PositionCalibration | None:
    if config.drop_rule != "probability":
        return None
    if config.calibration is None:
        raise ConfigError(
            "The drop_rule 'probability' needs a calibration; make one with 'rewardsteer "
            "calibrate' and name its file as calibration."
        )
    found = load_calibration(Path(config.calibration))
    ours = getattr(scorer, "fingerprint", "")
    if found.model_fingerprint and ours and found.model_fingerprint != ours:
        raise MismatchError(
            f"The calibration {config.calibration} belongs to a reward model with other weights; "
            "make one for this reward model with 'rewardsteer calibrate'."
        )
    return found


class FilterSession(ReviewSession):
    """Reads every token of the responses as they grow, and lets their rules decide."""

    def __init__(self, scorer: Rewarder, goal: GoalState) -> None:
        super().__init__(scorer)
        self._goal = goal

    def review(self, prefix: Prefix, ended: list[bool]) -> list[bool]:
        """Drop responses that stray from the goal."""
        rows = prefix.rows
        watched = [
            place for place, row in enumerate(rows)
            if row.watch is not None and place not in prefix.failed
        ]
        if not watched:
            return ended
        values = self._scorer.similarities(
            watched, prefix.ids, prefix.mask, self._goal, self._cache
        )
        self.count(watched, len(rows))
        out = list(ended)
        for place, value in zip(watched, values.tolist(), strict=True):
            if not is_number(value, prefix, place):
                continue
            if self._knows_the_end(rows[place], ended[place]) and rows[place].watch(value):
                rows[place].dropped = out[place] = True
        return out

    def _knows_the_end(self, row: Any, ended: bool) -> bool:
        """A reward model that was trained on open responses, or on responses with another end,
        knows no state of the token that ended the row."""
        if not ended or row.finish_reason != "stop":
            return True
        closed = self._scorer.close_response(row.token_ids, stop_of(row))
        known: bool = closed[: len(row.token_ids)] == list(row.token_ids)
        return known


class VotePlan:
    """Draws samples round by round until the vote is decided.

    A round is what can change the decision: all samples at once, those that fill up a window of
    ESC, or one for adaptive consistency. Samples that were dropped neither vote nor count to a
    window.
    """

    together = False

    def __init__(
        self, config: DecodingConfig, answer_of: Callable[[Any], str | None],
        new_watch: Callable[[], Callable[[float], bool] | None],
    ) -> None:
        self._config, self._answer_of, self._new_watch = config, answer_of, new_watch
        self._rows: dict[int, Any] = {}
        self._answers: dict[int, str | None] = {}
        self._begun, self._fallback = 0, False

    def start(self) -> list[int]:
        """The samples of the next round; all that were dropped, where no other is left."""
        config, left = self._config, self._config.n - self._begun
        if self._decided():
            return []
        if not left:
            if self._answers or self._fallback:
                return []
            self._fallback = True
            return [sample for sample in sorted(self._rows) if not self._settled(sample)]
        count = {
            "none": left, "adaptive": 1,
            "esc": config.vote_window - len(self._answers) % config.vote_window,
        }[config.vote_stop]
        round_ = range(self._begun, self._begun + min(count, left))
        self._begun = round_.stop
        return list(round_)

    def watch(self, sample: int) -> Callable[[float], bool] | None:
        """The rule that drops a sample; none for those that go on after all."""
        return None if self._fallback else self._new_watch()

    def finish(self, sample: int, row: Any) -> None:
        """A sample has ended."""
        self._rows[sample] = row
        if not row.dropped:
            self._answers[sample] = self._answer_of(row)

    def choose(self) -> int | None:
        """The first sample with the majority's answer, once that is decided."""
        if not self._answers:
            return None
        kept = sorted(self._answers)
        return kept[winner([self._answers[sample] for sample in kept])]

    def _settled(self, sample: int) -> bool:
        """Whether a sample was dropped at its very end: then it votes after all, as it is."""
        row = self._rows[sample]
        over = row.finish_reason == "stop" or len(row.token_ids) >= self._config.max_new_tokens
        if over:
            row.dropped = False
            self.finish(sample, row)
        return over

    def _decided(self) -> bool:
        config = self._config
        answers = [self._answers[sample] for sample in sorted(self._answers)]
        if config.vote_stop == "esc":
            full = answers and len(answers) % config.vote_window == 0
            return bool(full) and window_agrees(answers[-config.vote_window :])
        if config.vote_stop == "adaptive":
            votes = Counter(answer for answer in answers if answer is not None)
            return bool(votes) and majority_stands(votes, config.vote_confidence)
        return False
