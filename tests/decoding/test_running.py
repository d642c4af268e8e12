"""The loop on which programs run: results in order, and nothing left behind, however it ends."""

import asyncio
import gc
import random
import threading
from functools import partial

import pytest

from rewardsteer.decoding.answer import run
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate, require_answers
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.errors import RewardsteerError
from rewardsteer.records import Cost, Generation
from tests.decoding.test_generate import PROMPTS, make_policy


class Place:
    """Programs that sleep; what begins, ends and is cancelled is written down."""

    def __init__(self):
        self.begun, self.ended, self.cancelled, self.closed = [], [], [], 0
        self.left = None

    async def room(self):
        await asyncio.sleep(0)

    async def close(self):
        self.closed += 1
        self.left = asyncio.all_tasks() - {asyncio.current_task()}

    async def program(self, number, turns):
        self.begun.append(number)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        self.ended.append(number)
        return number

    def run(self, programs, most=4):
        return in_order(programs, self.room, self.close, most=most)

    def sleepers(self, turns):
        return [partial(self.program, number, count) for number, count in enumerate(turns)]


async def fails(error):
    raise error


FOREVER = 10**9


@pytest.mark.parametrize("most", [1, 3, 100])
def test_results_come_in_order(most):
    place, draw = Place(), random.Random(0)
    turns = [draw.randint(0, 60) for _ in range(40)]
    assert list(place.run(place.sleepers(turns), most)) == list(range(40))
    assert (place.ended == sorted(place.ended)) == (most == 1)
    assert (place.closed, place.left, place.cancelled) == (1, set(), [])


def test_no_more_run_at_once_than_may():
    place, working = Place(), []

    async def program(number):
        working.append(len(place.begun) - len(place.ended))
        return await place.program(number, 40)

    assert list(place.run([partial(program, number) for number in range(20)], 3)) == [*range(20)]
    assert max(working) == 2, "besides the one that looks"


def test_an_exception_comes_in_its_turn_and_cancels_the_rest():
    place, found = Place(), []
    programs = place.sleepers([30, 5, FOREVER, FOREVER])
    programs.insert(1, partial(fails, ZeroDivisionError("mine")))
    results = place.run(programs, 5)
    with pytest.raises(ZeroDivisionError, match="mine"):
        found.extend(iter(results.__next__, None))
    assert found == [0]
    assert sorted(place.cancelled) == [2, 3]
    assert (place.closed, place.left) == (1, set())


def test_failures_that_nobody_asks_for_are_not_printed(caplog):
    """Where a server goes away, all programs fail at once, and one error is told."""
    async def fails_late():
        for _ in range(30):
            await asyncio.sleep(0)
        raise ValueError("0")

    def first_error():
        try:
            list(Place().run([fails_late, partial(fails, ValueError("1"))]))
        except ValueError as error:
            return str(error)

    assert first_error() == "0"
    gc.collect()  # Python tells of an unseen error when its task goes.
    assert not caplog.records


def test_what_cannot_be_asked_for_ends_the_run():
    place = Place()

    def programs():
        yield from place.sleepers([3])
        raise OSError("no more prompts")

    results = place.run(programs())
    assert next(results) == 0
    with pytest.raises(OSError, match="no more prompts"):
        next(results)
    assert (place.closed, place.left) == (1, set())


def test_an_engine_that_cannot_be_closed_is_not_silent():
    async def close():
        raise RuntimeError("still busy")

    place = Place()
    with pytest.raises(RuntimeError, match="still busy"):
        list(in_order(place.sleepers([1]), place.room, close, most=1))


def test_closing_early_leaves_nothing_running():
    place = Place()
    results = place.run(place.sleepers([40, FOREVER, FOREVER]))
    assert next(results) == 0
    results.close()
    assert sorted(place.cancelled) == [1, 2]
    assert (place.closed, place.left) == (1, set())


def test_begun_outside_a_loop_and_given_up_inside_one():
    place = Place()
    results = place.run(place.sleepers([40, FOREVER, FOREVER]))
    assert next(results) == 0

    async def cell():
        results.close()

    asyncio.run(cell())
    assert sorted(place.cancelled) == [1, 2]
    assert (place.closed, place.left) == (1, set())


def test_inside_a_running_loop():
    """As in a notebook: there in another thread, with the same results and the same end."""
    place, threads = Place(), set()

    async def program(number):
        threads.add(threading.current_thread())
        return await place.program(number, 5)

    async def cell():
        whole = list(place.run([partial(program, number) for number in range(6)], 2))
        some = place.run(place.sleepers([1, FOREVER]))
        first = next(some)
        some.close()
        failing = place.run([partial(fails, ValueError("here"))])
        with pytest.raises(ValueError, match="here"):
            next(failing)
        return whole, first

    assert asyncio.run(cell()) == ([*range(6)], 0)
    assert len(threads) == 1
    assert threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)
    assert (place.closed, place.left, place.cancelled) == (3, set(), [1])


# --- with the engine ------------------------------------------------------------------------------


class Twice(Strategy):
    """Two samples at a time, one of them half as long and forked."""

    needs = "none"

    async def respond(self, prompt, engine, scorer):
        first = engine.start(0)
        await first.extend(5)
        other = engine.fork(first, 1)
        await asyncio.gather(first.extend(), other.extend())
        raise AssertionError("it never ends")


def begun(places=4, longest=400):
    policy, tokenizer = make_policy()
    engine = TransformersEngine(policy, tokenizer, Bounds(places=places))
    engine.stop_ids = frozenset()
    config = DecodingConfig(max_new_tokens=longest)
    prompts = [Encoded(str(n), tokenizer.encode(text)) for n, text in enumerate(PROMPTS)]
    return engine, config, prompts


def assert_nothing_left(engine, samples):
    assert (engine.busy, engine.waiting, engine.batches) == (0, 0, 0)
    assert samples
    assert all(sample.aborted and sample.held is None for sample in samples)
    assert not any(sample.growing for sample in samples)


def test_a_strategy_that_nobody_waits_for_leaves_no_sample_behind():
    engine, config, prompts = begun()
    samples, method = [], Twice(None, config)

    async def first():
        while engine.tokens < 40:
            await asyncio.sleep(0)

    programs = [first, *(
        partial(run, engine, None, prompt, method, config, watch=samples.append)
        for prompt in prompts
    )]
    results = in_order(programs, engine.room, engine.close, most=3)
    assert next(results) is None
    assert engine.busy
    results.close()
    assert_nothing_left(engine, samples)
    assert any(sample.origin is not None for sample in samples)


def test_generations_that_nobody_wants_are_given_up():
    """The caller looks at one answer of many."""
    policy, tokenizer = make_policy()
    passes, forward = [0], policy.forward

    def counted(*args, **options):
        passes[0] += 1
        return forward(*args, **options)

    policy.forward = counted
    config = DecodingConfig(max_new_tokens=20, batch_size=1, mode="greedy")
    results = generate(policy, tokenizer, PROMPTS * 3, build_method(config), config)
    next(results)
    seen = passes[0]
    results.close()
    assert passes[0] == seen <= 25


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_in_a_step_leaves_the_engine_closed(interruption):
    engine, config, prompts = begun()
    forward, passes, samples = engine.policy.forward, [0], []

    def interrupted(*args, **options):
        passes[0] += 1
        if passes[0] == 12:
            raise interruption
        return forward(*args, **options)

    engine.policy.forward = interrupted
    programs = [
        partial(run, engine, None, prompt, build_method(config), config, watch=samples.append)
        for prompt in prompts
    ]
    with pytest.raises(interruption):
        list(in_order(programs, engine.room, engine.close, most=4))
    assert_nothing_left(engine, samples)
    assert passes[0] == 12


def test_generate_inside_a_running_loop():
    policy, tokenizer = make_policy(eos_bias=2.0)
    config = DecodingConfig(max_new_tokens=9, batch_size=3, seed=2)

    def answers():
        found = generate(policy, tokenizer, PROMPTS, build_method(config), config)
        return [one.token_ids for one in found]

    async def cell():
        return answers()

    assert asyncio.run(cell()) == answers()


def test_where_answers_are_required_the_first_failure_ends_the_others():
    """At once, also while its traceback is kept."""
    ended = []

    def results():
        try:
            for error in (None, "broken", None):
                yield Generation(id="a", prompt="", completion="", method="none", seed=0,
                                 finish_reason="stop", cost=Cost(), error=error)
        finally:
            ended.append(True)

    with pytest.raises(RewardsteerError, match="broken") as kept:
        list(require_answers(results()))
    assert ended
    assert kept.tb is not None
