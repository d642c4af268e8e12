"""Best of n: draw n responses, keep the one with the highest reward."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guide import Choice, Reads, Rewarder
from rewardsteer.decoding.sampling import require_draws
from rewardsteer.errors import NonFiniteError


class BestOfN:
    """Response guide: argmax of r(x, y) over n samples of the policy, n reward calls per response.

    Args:
        scorer: a reward model with any head.
        config: ``n``, ``mode`` and ``batch_size`` are used.

    Raises:
        MismatchError: no reward model.
        ConfigError: several samples, but greedy.
    """

    name = "best_of_n"
    level: Literal["response"] = "response"
    needs = "any"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        check_scorer(self.name, type(self), scorer)
        require_draws(self.name, config)
        self.scorer = scorer
        self.samples = config.n
        self._batch_size = config.batch_size

    def choose(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]],
        names: Sequence[str], stop_ids: Collection[int] = (),
    ) -> list[Choice]:
        """The best response to each prompt; the first of equals. Where a reward is no number, its
        prompt's choice has an error and the others are made."""
        asked = [p for p, several in zip(prompts, responses, strict=True) for _ in several]
        closed = [
            self.scorer.close_response(one, stop_ids) for several in responses for one in several
        ]
        try:
            scores = self.scorer.score_ids(asked, closed, batch_size=self._batch_size)
        except NonFiniteError as error:
            if len(prompts) == 1:
                told = NonFiniteError(f"While choosing responses to {names[0]}: {error}")
                return [Choice(0, float("nan"), Reads(), told)]
            one_by_one = zip(prompts, responses, names, strict=True)
            return [self.choose([p], [r], [name])[0] for p, r, name in one_by_one]
        rewards = np.asarray(scores).reshape(len(prompts), -1)
        choices = []
        for row in range(len(prompts)):
            begin = row * rewards.shape[1]
            tokens = sum(
                len(asked[i]) + len(closed[i]) for i in range(begin, begin + rewards.shape[1])
            )
            best = int(rewards[row].argmax())
            reads = Reads(calls=rewards.shape[1], forwards=rewards.shape[1], tokens=tokens)
            choices.append(Choice(best, float(rewards[row, best]), reads))
        return choices
