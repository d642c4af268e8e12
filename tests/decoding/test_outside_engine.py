"""An engine of somebody else: one class outside the package, named ``package.module:Class``."""

import asyncio

import pytest

from rewardsteer import Steerer
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.sample import Sample
from rewardsteer.errors import ConfigError
from tests.fakes import character_tokenizer

NAME = "tests.decoding.test_outside_engine:Dice"


class Throw(Sample):
    """A response of digits that its own random numbers decide; a zero ends it."""

    async def extend(self, tokens=None, *, stop=None):
        await asyncio.sleep(0)
        most = self.config.max_new_tokens
        wanted = most if tokens is None else min(most, self.length + tokens)
        while self.length < wanted and self.finish_reason is None:
            digit = str(self.rng.randrange(10))
            self.token_ids += self.engine.tokenizer(digit).input_ids
            if digit == "0":
                self.finish_reason, self.stop_reason = "stop", self.token_ids[-1]
        if self.length == most and self.finish_reason is None:
            self.finish_reason = "length"

    def abort(self):
        self.aborted = True


class Dice(Engine):
    """Throws dice."""

    name = "dice"
    abilities = frozenset({"token_ids", "extend", "abort"})
    readable = 10_000

    @classmethod
    def open(cls, source, tokenizer, config, **options):
        return cls(tokenizer)

    def start(self, prompt, index, config, *, rng, guide=None, log_probabilities=False, top=None):
        return Throw(self, prompt, index, config, rng=rng)

    async def room(self):
        await asyncio.sleep(0)

    async def close(self):
        pass


def steer(folders, method, **settings):
    return Steerer(
        folders / "policy", None if method == "none" else folders / "bt", method, engine=NAME,
        tokenizer=character_tokenizer(), max_new_tokens=12, **settings,
    )


@pytest.fixture
def folders(tmp_path):
    from tests.api.conftest import make_folders

    return make_folders(tmp_path)


def test_it_answers_and_strategies_run_on_it(folders):
    alone = steer(folders, "none").generate(["a", "b"])
    assert all(one.text.isdigit() or one.text == "" for one in alone)
    assert alone[0].text != alone[1].text
    best = steer(folders, "best_of_n", n=4)
    [answer] = best.generate("a")
    assert answer.reward == pytest.approx(
        best.reward_models[0].score("a", answer.text), abs=1e-5
    )
    assert answer.cost.rm_calls > 0


def test_methods_that_need_logits_are_refused(folders):
    with pytest.raises(ConfigError, match="by their ids, which dice does not do"):
        steer(folders, "args", top_k=5).generate("a")
