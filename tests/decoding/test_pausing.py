"""Samples that pause while others grow: they go on as if they had not, and read nothing anew."""

import asyncio
import random

import pytest
import torch

from benchmarks.tiny import tiny_model
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded, Stop
from tests.decoding.segments import choose
from tests.decoding.test_generate import folders, make_policy, make_scorer  # noqa: F401
from tests.fakes import character_tokenizer

LONGEST = 14
PROMPT, OTHERS = "What is 7+8?", ["a", "Sum of three, four and 5: ", "zz top"]
CACHED = ["llama", "gpt2"]
CACHELESS = ["mamba", "rwkv"]


def policy_of(kind):
    if kind in CACHED:
        return make_policy(kind)
    tokenizer = character_tokenizer(padding_side="left")
    return tiny_model(kind, len(tokenizer)), tokenizer


class Stage:
    """An engine of a policy that never ends by itself, and prompts to start on it."""

    def __init__(self, kind, mode="sample", places=3, guide=None):
        policy, self.tokenizer = policy_of(kind)
        self.engine = TransformersEngine(policy, self.tokenizer, Bounds(places=places))
        self.engine.stop_ids = frozenset()
        self.config = DecodingConfig(mode=mode, top_k=0, max_new_tokens=LONGEST)
        self.guide = guide

    def start(self, text, seed=0):
        return self.engine.start(
            Encoded(text, self.tokenizer.encode(text)), 0, self.config,
            rng=random.Random(f"{seed}/{text}"), guide=self.guide,
        )

    def play(self, program):
        [found] = in_order([program], self.engine.room, self.engine.close, most=1)
        return found

    async def crowd(self):
        """Others take all the places, to their end."""
        await asyncio.gather(*(self.start(text).extend() for text in OTHERS))

    @torch.no_grad()
    def plain(self, tokens, count, draws):
        """So many tokens more, every step read whole and without a cache."""
        ids, out = self.tokenizer.encode(PROMPT), list(tokens)
        while len(out) < count:
            row = torch.tensor([[*ids, *out]])
            logits = self.engine.policy(input_ids=row, use_cache=False).logits[0, -1]
            out.append(choose(logits, draws, self.config))
        return out


def draws(seed=0):
    return random.Random(f"{seed}/{PROMPT}")


@pytest.mark.parametrize("mode", ["greedy", "sample"])
@pytest.mark.parametrize("kind", [*CACHED, *CACHELESS])
def test_a_sample_that_paused_goes_on(kind, mode):
    stage = Stage(kind, mode)

    async def program():
        sample = stage.start(PROMPT)
        for tokens in (1, 4, 2):
            await sample.extend(tokens)
            await stage.crowd()
        assert sample.length == 7
        await sample.extend()
        return sample

    sample = stage.play(program)
    assert sample.token_ids == stage.plain([], LONGEST, draws())
    assert sample.finish_reason == "length"
    assert (sample.cost.lm_calls, sample.cost.lm_forwards) == (LONGEST, LONGEST)
    if kind in CACHED:
        assert sample.cost.lm_tokens == len(PROMPT) + LONGEST - 1


@pytest.mark.parametrize("kind", [*CACHED, *CACHELESS])
def test_samples_that_pause_in_turn(kind):
    """More of them than places, each by other steps."""
    stage = Stage(kind, places=2)

    async def one(text, step):
        sample = stage.start(text)
        while sample.finish_reason is None:
            await sample.extend(step)
        return sample

    async def program():
        return await asyncio.gather(
            *(one(text, step) for step, text in enumerate([*OTHERS, PROMPT], start=1))
        )

    *others, last = stage.play(program)
    assert last.token_ids == stage.plain([], LONGEST, draws())
    alone = Stage(kind, places=1)
    for text, sample in zip(OTHERS, others, strict=True):
        assert sample.token_ids == alone.play(lambda text=text: one_whole(alone, text)).token_ids
        if kind in CACHED:
            assert sample.cost.lm_tokens == len(text) + LONGEST - 1


async def one_whole(stage, text):
    sample = stage.start(text)
    await sample.extend()
    return sample


@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("kind", [*CACHED, *CACHELESS])
def test_forks_go_on_from_what_was_read(kind, pause):
    stage = Stage(kind)

    async def program():
        parent = stage.start(PROMPT)
        await parent.extend(5)
        if pause:
            await stage.crowd()
        forks = [parent.fork(index, draws(index)) for index in (1, 2, 3)]
        await forks[0].extend()
        await asyncio.gather(parent.extend(), *(fork.extend() for fork in forks[1:]))
        # What is held is of the fork's own tokens, however far its parent is.
        late = forks[1].fork(4, draws(4))
        late.revise(late.token_ids[:9])
        await late.extend()
        return parent, forks, late

    parent, forks, late = stage.play(program)
    begin = stage.plain([], 5, draws())
    assert parent.token_ids == stage.plain([], LONGEST, draws())
    for index, fork in enumerate(forks, start=1):
        assert fork.origin is parent
        assert fork.token_ids == stage.plain(begin, LONGEST, draws(index))
    assert late.token_ids == stage.plain(forks[1].token_ids[:9], LONGEST, draws(4))
    if kind in CACHED:
        assert parent.cost.lm_tokens == len(PROMPT) + LONGEST - 1
        # The parent drew its fifth token and has not read it.
        assert [fork.cost.lm_tokens for fork in forks] == [LONGEST - 5] * 3


@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("kind", [*CACHED, *CACHELESS])
def test_tokens_that_are_taken_back(kind, pause):
    stage = Stage(kind)

    async def program():
        sample = stage.start(PROMPT)
        await sample.extend(8)
        sample.revise(sample.token_ids[:3])
        if pause:
            await stage.crowd()
        await sample.extend(4)
        if pause:
            await stage.crowd()
        await sample.extend()
        return sample

    sample, chance = stage.play(program), draws()
    whole = stage.plain([], 8, chance)
    assert sample.token_ids == stage.plain(whole[:3], LONGEST, chance)
    assert sample.cost.lm_calls == 8 + LONGEST - 3
    if kind in CACHED:
        # The last token that is left is read once more, for the scores behind it.
        assert sample.cost.lm_tokens == len(PROMPT) + 7 + (LONGEST - 3)


@pytest.mark.parametrize("kind", CACHED)
def test_a_stop_before_an_unsure_token_and_another_way_on(kind):
    """It stops with its next token's scores read; the same ones are drawn from later."""
    stage = Stage(kind)
    stop = Stop(entropy=0.0, least=3)

    async def program():
        sample = stage.start(PROMPT)
        await sample.extend(9, stop=stop)
        assert sample.length == 3
        await stage.crowd()
        await sample.extend()
        return sample

    sample = stage.play(program)
    assert sample.token_ids == stage.plain([], LONGEST, draws())
    assert sample.cost.lm_tokens == len(PROMPT) + LONGEST - 1


@pytest.mark.parametrize("name", ["farma", "args"])
def test_guided_samples_pause_too(folders, name):  # noqa: F811
    config = DecodingConfig(method=name, top_k=5, weight=1.5)
    scorer = make_scorer(folders["llama"], {"farma": "vocabulary", "args": "scalar"}[name])
    found = []
    for steps in ((), (1, 4, 2)):
        stage = Stage("llama", guide=build_method(config, scorer))

        async def program(stage=stage, steps=steps):
            sample = stage.start(PROMPT)
            for tokens in steps:
                await sample.extend(tokens)
                await stage.crowd()
            await sample.extend()
            return sample

        found.append(stage.play(program))
    whole, paused = found
    assert paused.token_ids == whole.token_ids
    assert paused.cost.rm_calls == whole.cost.rm_calls


def test_an_aborted_sample_holds_nothing_and_its_forks_go_on():
    stage = Stage("llama")

    async def program():
        parent = stage.start(PROMPT)
        await parent.extend(5)
        fork = parent.fork(1, draws(1))
        parent.abort()
        await stage.crowd()
        assert parent.held is None
        await fork.extend()
        return parent, fork

    parent, fork = stage.play(program)
    assert fork.token_ids == stage.plain(parent.token_ids, LONGEST, draws(1))
    assert (parent.length, parent.cost.lm_tokens) == (5, len(PROMPT) + 4)
    assert fork.cost.lm_tokens == LONGEST - 5
