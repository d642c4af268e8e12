"""Majority vote (self-consistency, arXiv 2203.11171), with early stopping as ESC or
Adaptive-Consistency."""

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.decoding.strategies.votes import Vote, final_answer


class MajorityVote(Strategy):
    """The first of up to ``n`` samples with the most frequent final answer; ``vote_stop`` ends the
    drawing, see `rewardsteer.decoding.strategies.votes`. A reward model is not used."""

    uses = ("n", "vote_stop", "vote_window", "vote_confidence")
    needs = "none"
    judges_texts = False
    abilities = frozenset()
    draws_several = True

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        vote = Vote(self.config)
        while round_ := vote.next_round():
            for sample in await engine.draw(round_):
                vote.count(sample.index, final_answer(sample.text))
        return Outcome(engine.samples[vote.winner()])
