"""Beam search over steps, by rewards of prefixes (arXiv 2408.03314) or by a goal state (arXiv
2407.13887)."""

from asyncio import gather
from collections.abc import Sequence

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.decoding.strategies.steps import (
    Judged,
    RankedSearch,
    best_of,
    distinct,
    width_within,
)


class Beam(RankedSearch):
    """The ``beam`` best hypotheses are kept; each is continued ``branches`` times by a step, in at
    most ``max_steps`` rounds. Finished hypotheses compete, and equal ones count once. The answer is
    the best that came to its end, or the best of all.

    With ``value_noise``, the standard deviation of a value's error, the beam adapts its width: of
    the ``beam`` best, only those are kept that cannot be told apart from the best
    (`rewardsteer.decoding.strategies.steps.width_within`). A reward model that tells steps apart
    needs few hypotheses, a noisy one does not decide between them.

    What they are ranked by: `rewardsteer.decoding.strategies.steps.RankedSearch`. A round's draws
    come from generators of the prompt's own, the first of which goes to the best hypothesis."""

    uses = (*RankedSearch.uses, "value_noise")

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        config, judged, widths = self.config, dict[Sample, Judged](), list[int]()
        # As many empty ones as the beam holds: the first round draws as widely as the later ones.
        kept: list[Sample] = []
        for _ in range(config.max_steps):
            parents = [one for one in kept if not one.finish_reason]
            if kept and not parents:
                break
            grown = self.branch(engine, parents, range(len(parents) or config.beam))
            await gather(*(one.extend(config.step_tokens, stop=self.stop) for one in grown))
            finished = [one for one in kept if one.finish_reason]
            fresh = distinct(finished, grown)
            judged |= dict(zip(fresh, await self.judge(fresh, scorer), strict=True))
            # The earlier of equals.
            ranked = sorted([*finished, *fresh], key=lambda one: -judged[one].score)
            kept = ranked[: self._width([judged[one].score for one in ranked])]
            widths.append(len(kept))
            for one in ranked[len(kept) :]:
                one.abort()
        best = best_of(kept)
        return Outcome(best, self.reward(judged[best].value), {"widths": widths})

    def _width(self, scores: Sequence[float]) -> int:
        """How many of the ranked hypotheses are kept."""
        config, widest = self.config, scores[: self.config.beam]
        if config.value_noise is None:
            return len(widest)
        share = abs(config.weight) if self.asks_log_probabilities else 1.0
        return width_within(widest, share * config.value_noise)
