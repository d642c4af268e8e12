"""Rows that finish give their places to new ones: answers, costs and order are those of rows that
run alone."""

import random
from functools import partial, wraps

import pytest
import torch

from rewardsteer.decoding.answer import run as respond
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.guides.none import Plain
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded
from rewardsteer.errors import NonFiniteError, RewardsteerError
from rewardsteer.models.prefix_state import EMPTY_ROW
from tests.decoding.naive import naive_greedy
from tests.decoding.tables import TableEngine, TableReader
from tests.decoding.test_generate import folders, make_policy, make_scorer  # noqa: F401

# What the reward model of each token method was trained with.
TOKEN_METHODS = {
    "none": None, "farma": ("vocabulary", ""), "genarm": ("vocabulary", "autoregressive"),
    "args": ("scalar", ""), "pargs": ("scalar", "partial"), "cd": ("scalar", "partial"),
}

# Rows end at different steps.
EOS_BIAS = {"llama": 1.5, "gpt2": 2.0, "gpt_neox": 2.0}


def make_requests(count=23, longest=90):
    """Prompts of very different lengths, many more than places."""
    draw = random.Random(0)
    prompts = [[draw.randint(3, 70) for _ in range(draw.randint(1, longest))] for _ in range(count)]
    return [
        Request(id=f"r{index}", prompt="", prompt_ids=ids) for index, ids in enumerate(prompts)
    ]


REQUESTS = make_requests()


def make_guide(config, folders, kind="llama"):  # noqa: F811
    needed = TOKEN_METHODS[config.method]
    return build_method(config, needed and make_scorer(folders[kind], *needed))


def run(folders, requests=REQUESTS, kind="llama", **settings):  # noqa: F811
    policy, tokenizer = make_policy(kind, eos_bias=EOS_BIAS[kind])
    config = DecodingConfig(**{"max_new_tokens": 14, "top_k": 5, "weight": 1.5, **settings})
    return list(generate(policy, tokenizer, requests, make_guide(config, folders, kind), config))


def without_seconds(result):
    return result.model_copy(update={"cost": result.cost.model_copy(update={"seconds": 0.0})})


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "llama") for name in TOKEN_METHODS]
    + [(name, kind) for name in ("farma", "args") for kind in ("gpt2", "gpt_neox")],
)
def test_equals_the_naive_loop(folders, name, kind):  # noqa: F811
    results = run(folders, kind=kind, method=name, mode="greedy", batch_size=4)
    policy, tokenizer = make_policy(kind, eos_bias=EOS_BIAS[kind])
    config = DecodingConfig(method=name, mode="greedy", top_k=5, weight=1.5, max_new_tokens=14)
    scorer = make_guide(config, folders, kind).scorer
    assert [result.id for result in results] == [request.id for request in REQUESTS]
    for request, result in zip(REQUESTS, results, strict=True):
        stop_ids = {tokenizer.eos_token_id}
        assert result.token_ids == naive_greedy(
            policy, scorer, request.prompt_ids, config, stop_ids
        )
    assert len({len(result.token_ids) for result in results}) > 3


@pytest.mark.parametrize("mode", ["greedy", "sample"])
@pytest.mark.parametrize("name", TOKEN_METHODS)
def test_a_row_is_what_it_is_alone(folders, name, mode):  # noqa: F811
    """Answer and cost, whatever the number of places and whatever else there is."""
    settings = {"method": name, "mode": mode, "seed": 3, "weight": 0.7}
    together = run(folders, **settings, batch_size=4)
    expected = {result.id: without_seconds(result) for result in together}
    some = [REQUESTS[index] for index in (20, 3, 11, 0, 7)]
    for requests, batch_size in [(REQUESTS, 7), (REQUESTS[::-1], 2), (some, 1), (REQUESTS, 64)]:
        for result in run(folders, requests, **settings, batch_size=batch_size):
            assert without_seconds(result) == expected[result.id]
    for request, result in zip(REQUESTS, together, strict=True):
        cost, p, n = result.cost, len(request.prompt_ids), len(result.token_ids)
        assert (cost.lm_calls, cost.lm_forwards, cost.lm_tokens) == (n, n, p + n - 1)
        assert (cost.rm_calls, cost.rm_forwards, cost.rm_tokens) == {
            "none": (0, 0, 0), "farma": (n, n, p + n - 1), "genarm": (n, n, p + n - 1),
        }.get(name, (5 * n, n, p + 5 * n))


def test_rows_with_settings_of_their_own_share_a_batch(folders):  # noqa: F811
    """Modes, temperatures, numbers of candidates and lengths differ from row to row."""
    changes = [
        {"mode": "greedy"}, {"temperature": 0.5}, {"top_k": 0}, {"max_new_tokens": 3},
        {"temperature": 2.0, "top_k": 2, "max_new_tokens": 20},
    ]
    expected, programs = {}, []
    base = {"method": "farma", "seed": 3, "weight": 0.7, "max_new_tokens": 14, "top_k": 5}
    policy, tokenizer = make_policy("llama", eos_bias=EOS_BIAS["llama"])
    engine = TransformersEngine(policy, tokenizer, Bounds(6))
    guide = make_guide(DecodingConfig(**base), folders)
    for index, request in enumerate(REQUESTS):
        settings = base | changes[index % len(changes)]
        [expected[request.id]] = run(folders, [request], **settings)
        prompt = Encoded(request.id, request.prompt_ids)
        programs.append(partial(
            respond, engine, None, prompt, guide, DecodingConfig(**settings)
        ))
    found = list(in_order(programs, engine.room, engine.close, most=6))
    assert engine.batches == 0
    for request, (outcome, _) in zip(REQUESTS, found, strict=True):
        assert outcome.sample.token_ids == expected[request.id].token_ids
    assert len({len(outcome.sample.token_ids) for outcome, _ in found}) > 5


def test_best_of_n_flows_from_prompt_to_prompt(folders):  # noqa: F811
    def best(batch_size):
        policy, tokenizer = make_policy(eos_bias=EOS_BIAS["llama"])
        config = DecodingConfig(method="best_of_n", n=3, max_new_tokens=9, batch_size=batch_size)
        method = build_method(config, make_scorer(folders["llama"], "scalar"))
        return list(generate(policy, tokenizer, REQUESTS[:9], method, config))

    alone = best(1)
    for results in (best(4), best(64)):
        for one, other in zip(results, alone, strict=True):
            assert (one.id, one.token_ids) == (other.id, other.token_ids)
            assert one.reward == pytest.approx(other.reward, abs=1e-4)
            assert one.cost.model_copy(update={"seconds": 0}) == other.cost.model_copy(
                update={"seconds": 0}
            )


# --- the loop itself, on tables -------------------------------------------------------------------

STOP, GO_ON = 0, 1


class Lengths(TableReader):
    """Every row stops after as many tokens as its prompt says."""

    def __init__(self):
        super().__init__(None)
        self.seen = []  # rows of every step
        self.selected = []  # how places changed

    def step(self, ids, mask):
        self.count(ids, mask, 0)
        self.seen.append([row[shown.bool()].tolist() for row, shown in zip(ids, mask, strict=True)])
        return torch.tensor([
            [1.0, 0.0] if len(row) == row[0] else [0.0, 1.0] for row in self.seen[-1]
        ])

    def select(self, rows):
        super().select(rows)
        self.selected.append(list(rows))


def flow(lengths, places, reader=Lengths, pulled=None):
    """Samples of such lengths, or why there is none, with their costs; ``pulled`` collects prompts
    as they are asked for."""
    config = DecodingConfig(mode="greedy", max_new_tokens=99)
    engine, guide = TableEngine(reader, places, {STOP}), Plain(None, config)

    async def answer(prompt):
        try:
            return (await respond(engine, None, prompt, guide, config))
        except RewardsteerError as error:
            return error, None

    def programs():
        for index, length in enumerate(lengths):
            if pulled is not None:
                pulled.append(index)
            yield partial(answer, Encoded(str(index), [length]))

    return in_order(programs(), engine.room, engine.close, most=1000)


def of_one(kind):
    """The only reader of this kind that a run makes."""
    made = []

    class Kept(kind):
        def __init__(self):
            super().__init__()
            made.append(self)

    return Kept, made


_DRAW = random.Random(1)
LENGTHS = [_DRAW.randint(1, 20) for _ in range(200)]


@pytest.mark.parametrize("places", [1, 3, 8, 40, 1000])
def test_every_row_gets_its_tokens_in_order(places):
    found = list(flow(LENGTHS, places))
    for (outcome, cost), length in zip(found, LENGTHS, strict=True):
        assert outcome.sample.token_ids == [GO_ON] * (length - 1) + [STOP]
        assert outcome.sample.finish_reason == "stop"
        assert (cost.lm_forwards, cost.lm_tokens) == (length, length)


def test_no_place_is_empty_while_rows_wait():
    kind, made = of_one(Lengths)
    list(flow(LENGTHS, 8, kind))
    [reader] = made
    working = [len(rows) for rows in reader.seen]
    assert working[: len(working) - 20] == [8] * (len(working) - 20)
    lockstep = sum(max(LENGTHS[begin : begin + 8]) for begin in range(0, 200, 8))
    assert len(working) < 0.7 * lockstep


def test_with_many_places_rows_enter_in_company():
    kind, made = of_one(Lengths)
    list(flow(LENGTHS, 40, kind))
    came = [rows.count(EMPTY_ROW) for rows in made[0].selected if EMPTY_ROW in rows]
    assert all(count >= 5 for count in came[:-1])
    assert len(came) > 5


@pytest.mark.parametrize("places", [8, 40])
def test_rows_move_only_to_close_gaps(places):
    """What moves is copied."""
    kind, made = of_one(Lengths)
    list(flow(LENGTHS, places, kind))
    before = places
    for rows in made[0].selected:
        moved = [row for place, row in enumerate(rows) if row not in (place, EMPTY_ROW)]
        assert len(moved) <= max(0, before - len(rows))
        before = len(rows)


def test_prompts_are_asked_for_when_there_is_a_place():
    pulled = []
    next(flow([3] + [30] * 50, 4, pulled=pulled))
    # The next one is asked for as a place comes free.
    assert pulled in ([0, 1, 2, 3], [0, 1, 2, 3, 4])


def test_finished_rows_wait_for_the_first():
    pulled = []
    found = flow([90] + [1] * 500, 4, pulled=pulled)
    assert len(next(found)[0].sample.token_ids) == 90
    # Three places, ninety steps, and the place of the first.
    assert len(pulled) in (1 + 3 * 90, 2 + 3 * 90)
    assert [len(outcome.sample.token_ids) for outcome, _ in found] == [1] * 500


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_row_without_numbers_fails_alone(value):
    class Broken(Lengths):
        def step(self, ids, mask):
            logits = super().step(ids, mask)
            for row, seen in enumerate(self.seen[-1]):
                if seen[0] == 6 and len(seen) == 3:
                    logits[row] = float(value)
            return logits

    lengths = [2, 9, 6, 6, 5, 1, 6, 12]
    for number, (length, (found, _)) in enumerate(
        zip(lengths, flow(lengths, 3, Broken), strict=True)
    ):
        if length == 6:
            assert isinstance(found, NonFiniteError)
            assert f"infinite logits at step 3 of row '{number}'" in str(found)
        else:
            assert found.sample.token_ids == [GO_ON] * (length - 1) + [STOP]


def test_memory_for_fewer_rows_gives_the_same_answers(folders):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=EOS_BIAS["llama"])
    config = DecodingConfig(max_new_tokens=14, batch_size=8, seed=2)
    method = build_method(config)
    plain = list(generate(policy, tokenizer, REQUESTS, method, config))
    forward, rows = policy.forward, []

    @wraps(forward)
    def narrow(*args, **options):
        rows.append(len(options["input_ids"]))
        if rows[-1] > 3:
            raise torch.OutOfMemoryError("full")
        return forward(*args, **options)

    policy.forward = narrow
    found = list(generate(policy, tokenizer, REQUESTS, method, config))
    assert max(rows) == 8
    assert [one.token_ids for one in found] == [one.token_ids for one in plain]


def test_a_row_that_does_not_fit_alone_fails_alone(folders):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=EOS_BIAS["llama"])
    longest = max(len(request.prompt_ids) for request in REQUESTS)
    config = DecodingConfig(max_new_tokens=14, batch_size=3, seed=2)
    method = build_method(config)
    plain = list(generate(policy, tokenizer, REQUESTS, method, config))
    forward = policy.forward

    @wraps(forward)
    def short(*args, **options):
        if options["input_ids"].shape[1] >= longest:
            raise torch.OutOfMemoryError("full")
        return forward(*args, **options)

    policy.forward = short
    found = list(generate(policy, tokenizer, REQUESTS, method, config))
    for one, before, request in zip(found, plain, REQUESTS, strict=True):
        if len(request.prompt_ids) == longest:
            assert "Out of memory with one row alone; lower max_new_tokens" in one.error
        else:
            assert one.token_ids == before.token_ids
