"""Beam search over steps, by rewards of prefixes (arXiv 2408.03314) or by a goal state (arXiv
2407.13887)."""

from asyncio import gather

from rewardsteer.decoding.engine import Encoded, Outcome, Sample
from rewardsteer.decoding.strategies.prompt import PromptEngine, PromptScorer
from rewardsteer.decoding.strategies.steps import Judged, RankedSearch, best_of, distinct


class Beam(RankedSearch):
    """The ``beam`` best hypotheses are kept; each is continued ``branches`` times by a step, in at
    most ``max_steps`` rounds. Finished hypotheses compete, and equal ones count once. The answer is
    the best that came to its end, or the best of all.

    What they are ranked by: `rewardsteer.decoding.strategies.steps.RankedSearch`. A round's draws
    come from generators of the prompt's own, the first of which goes to the best hypothesis."""

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        """The best hypothesis."""
        config, judged = self.config, dict[Sample, Judged]()
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
            kept = sorted([*finished, *fresh], key=lambda one: -judged[one].score)[: config.beam]
        best = best_of(kept)
        return Outcome(best, self.reward(judged[best].value))
