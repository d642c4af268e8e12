"""Speculative rejection: best of n that drops the worse responses early (arXiv 2410.20290)."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guide import Prefix, Rewarder, stop_of
from rewardsteer.decoding.reviews import ReviewSession
from rewardsteer.decoding.sampling import require_draws
from rewardsteer.errors import ConfigError


class SpeculativeRejection:
    """Group guide: n samples begin; whenever those that still grow hold n · ``decision_tokens``
    tokens together, the worst ⌊α · m⌋ of these m (at least one) by r(x, y so far) are dropped. Of
    the responses that came to their end the one with the highest r(x, y) answers.

    The published algorithm decides when the memory is full. Memory is what the responses hold, so
    here that is a number of tokens a prompt, and what is dropped does not depend on the machine or
    on other prompts. Places that are left are used by these.

    Args:
        scorer: a reward model with a scalar head.
        config: ``n``, ``reject_share``, ``decision_tokens``, ``mode`` and ``batch_size`` are used.

    Raises:
        MismatchError: no reward model, or one without a scalar head.
        ConfigError: several samples, but greedy, or more than places.
    """

    name = "speculative_rejection"
    level: Literal["group"] = "group"
    needs = "scalar"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        check_scorer(self.name, type(self), scorer)
        require_draws(self.name, config)
        if config.n > config.batch_size:
            raise ConfigError(
                f"The method {self.name!r} draws the n = {config.n} responses to a prompt "
                f"together, but batch_size is {config.batch_size}; raise it or lower n."
            )
        self.scorer, self.samples, self._config = scorer, config.n, config

    def open(self) -> "RejectionSession":
        """Begin a batch."""
        return RejectionSession(self.scorer, self._config)

    def plan(self, text_of: Callable[[Any], str]) -> "BestPlan":
        """Begin with a prompt."""
        return BestPlan(self.samples)


class BestPlan:
    """All samples at once; the best of those that were not dropped."""

    together = True

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._rows: dict[int, Any] = {}

    def start(self) -> list[int]:
        """All samples, once."""
        return [] if self._rows else list(range(self._samples))

    def watch(self, sample: int) -> None:
        """Samples are judged against each other."""

    def finish(self, sample: int, row: Any) -> None:
        """A sample has ended."""
        self._rows[sample] = row

    def choose(self) -> int | None:
        """The sample with the highest reward, the first of equals; None before all have ended."""
        if len(self._rows) < self._samples:
            return None
        kept = sorted(sample for sample, row in self._rows.items() if not row.dropped)
        return max(kept, key=lambda sample: self._rows[sample].reward)


class RejectionSession(ReviewSession):
    """Reads responses where there is something to decide, and at their end."""

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        super().__init__(scorer)
        self._share = config.reject_share
        self._memory = config.n * config.decision_tokens

    def review(self, prefix: Prefix, ended: list[bool]) -> list[bool]:
        """Drop the worse responses of prompts whose responses hold as much as they may."""
        growing: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(prefix.rows):
            if not ended[place]:
                growing[row.name].append(place)
        full = [
            places for places in growing.values()
            if len(places) > 1
            and sum(len(prefix.rows[place].token_ids) for place in places) >= self._memory
        ]
        texts = {}
        for place in sorted({place for places in full for place in places}):
            row = prefix.rows[place]
            texts[place] = [*row.prompt_ids, *row.token_ids]
        for place, row in enumerate(prefix.rows):
            if ended[place] and place not in prefix.failed:
                closed = self._scorer.close_response(row.token_ids, stop_of(row))
                texts[place] = [*row.prompt_ids, *closed]
        rewards = self.rewards_of(prefix, texts)
        for place, reward in rewards.items():
            prefix.rows[place].reward = reward
        out = list(ended)
        for places in full:
            for place in self._worst(prefix, [one for one in places if one in rewards]):
                prefix.rows[place].dropped = out[place] = True
        return out

    def _worst(self, prefix: Prefix, places: list[int]) -> list[int]:
        """The places of the worst share, of equals the later samples."""
        ranked = sorted(
            places, key=lambda place: (prefix.rows[place].reward, -prefix.rows[place].sample)
        )
        return ranked[: max(1, math.floor(self._share * len(places)))]
