"""Goal filter: a vote over samples that stay near a goal state; others are dropped while they are
written (arXiv 2407.13887), and no more are drawn once the vote is decided."""

from asyncio import gather
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.early_rejection import load_rule, rejection_rule
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.decoding.strategies.votes import Vote, final_answer
from rewardsteer.errors import MismatchError


class GoalFilter(Strategy):
    """Up to ``n`` samples; one whose state strays from the goal is dropped. The answer is the first
    kept sample with the majority's final answer.

    If all n samples are dropped, all are kept (as published): they continue, and all vote. Rules of
    dropping: `rewardsteer.decoding.strategies.early_rejection`; of voting, which ends the drawing:
    `rewardsteer.decoding.strategies.votes`. With the rule ``none`` the reward model is not run,
    which leaves plain voting, ESC or adaptive consistency.

    Raises:
        MismatchError: a goal that depends on the prompt; a calibration of another reward model.
        ConfigError: several samples, but greedy; the rule ``probability`` without a calibration.
        DataError: the calibration cannot be read.
    """

    uses = (
        "n", "drop_rule", "drop_threshold", "drop_start", "drop_patience", "calibration",
        "vote_stop", "vote_window", "vote_confidence",
    )
    wants_goal = True
    judges_texts = False
    draws_several = True

    def __init__(self, scorer: Any, config: DecodingConfig, goal: Any = None) -> None:
        super().__init__(scorer, config, goal)
        assert self.goal is not None, "required above"
        if self.goal.keys is not None:
            raise MismatchError(
                f"The goal {self.goal.name!r} is of kind 'nearest', which depends on the prompt; "
                f"the method {self.name!r} needs one of kind mean, contrast or clusters."
            )
        self._calibration = load_rule(config, scorer)

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        vote, dropped = Vote(self.config), list[Sample]()
        while round_ := vote.next_round():
            samples = [engine.start(index) for index in round_]
            kept = await gather(*(self._written(one, engine, scorer) for one in samples))
            for sample, stays in zip(samples, kept, strict=True):
                if stays:
                    vote.count(sample.index, final_answer(sample.text))
                else:
                    dropped.append(sample)
        if not vote.answers:
            await gather(*(sample.extend() for sample in dropped))
            for sample in dropped:
                vote.count(sample.index, final_answer(sample.text))
        winner = vote.winner()
        return Outcome(next(one for one in engine.samples if one.index == winner))

    async def _written(
        self, sample: Sample, engine: PromptEngine, scorer: PromptScorer
    ) -> bool:
        """Generate a sample while checking every token; whether it is kept. Tokens after the one
        that drops it stay, because it may have to go on."""
        assert self.goal is not None, "required above"
        drops = rejection_rule(self.config, self._calibration)
        if drops is None:
            await sample.extend()
            return True
        while sample.finish_reason is None:
            await sample.extend(engine.stride)
            values = await scorer.new_similarities(sample, self.goal)
            if sample.finish_reason == "stop" and not scorer.knows_end(sample):
                values = values[:-1]
            if any(map(drops, values)):
                return False
        return True
