"""Rows that come, go, move and wait, against reading every prefix anew; needs no vLLM."""

import random

import pytest
import torch

from rewardsteer.decoding.engines.vllm_requests import Wish
from rewardsteer.decoding.engines.vllm_rows import COSTS, GuidedRows, Seat
from rewardsteer.decoding.guide import Reads
from rewardsteer.models.scorer import Scorer
from tests.vllm.models import REWARDS, save_models

V = 79


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


def plain(scorer, seat, logits):
    """Guided scores of one row, nothing kept."""
    ids = torch.tensor([[*seat.prompt, *seat.output]])
    mask, wish = torch.ones_like(ids), seat.wish
    if scorer.head_kind == "vocabulary":
        rewards = scorer.next_token(ids, mask)[0]
        if scorer.autoregressive:
            rewards = rewards.log_softmax(dim=0)
        return logits + wish.weight * rewards
    best = logits.topk(wish.top_k).indices
    rewards = [
        scorer.candidates(ids, mask, token.view(1, 1))[0, 0] for token in best
    ]
    scores = torch.full_like(logits, -torch.inf)
    scores[best] = logits[best] + wish.weight * torch.stack(rewards)
    return scores


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("seed", range(2))
def test_any_course_of_events(root, name, seed):
    rng, scorer = random.Random(seed), Scorer.load(root / name)
    torch.manual_seed(seed)
    rows, seats, away = GuidedRows(scorer), [], []

    def arrive():
        prompt = rng.choices(range(3, V), k=rng.randint(1, 20))
        weight = rng.choice([-1.0, 0.3, 2.0])
        return Seat(Wish(weight, rng.choice([1, 3, 6]), name), prompt, [])

    for _ in range(16):
        away += [seat for seat in seats if rng.random() < 0.1]
        seats = [seat for seat in seats if seat not in away and rng.random() < 0.95]
        seats += [arrive() for _ in range(rng.choice([0, 0, 1, 2]))]
        if away and rng.random() < 0.5:
            # What was set aside comes back as a new seat.
            back = away.pop()
            seats.append(Seat(back.wish, back.prompt, list(back.output)))
        if rng.random() < 0.3:
            rng.shuffle(seats)
        if not seats:
            rows.forget()
            continue
        logits = torch.randn(len(seats), V)
        found = rows.scores(seats, logits)
        for seat, scores, row in zip(seats, found, logits, strict=True):
            torch.testing.assert_close(scores, plain(scorer, seat, row), atol=2e-4, rtol=1e-4)
        for seat in seats:
            if rng.random() < 0.9:  # the others are in the midst of their prompt
                seat.output.append(rng.randrange(3, V))


def test_costs_of_a_request_that_was_set_aside_add_up(root):
    rows = GuidedRows(Scorer.load(root / "args"))
    one, other = (Seat(Wish(1.0, 3, "args", name), [4, 5, 6], []) for name in ("one", "other"))
    COSTS["one"] = Reads()
    logits = torch.arange(V).float()
    try:
        for seats in ([other], [other, one], [one, other], [other]):
            rows.scores(seats, logits.expand(len(seats), V))
            for seat in seats:
                seat.output.append(V - 1)
        assert COSTS["one"] == Reads(6, 2, 3 + 3 + 3)
        back = Seat(one.wish, one.prompt, one.output)
        rows.scores([other, back], logits.expand(2, V))
        assert COSTS["one"] == Reads(9, 3, 9 + 5 + 3)
        assert list(COSTS) == ["one"]
    finally:
        COSTS.clear()


def test_unchanged_rows_are_read_by_what_they_grew(root):
    scorer = Scorer.load(root / "farma")
    rows = GuidedRows(scorer)
    seats = [
        Seat(Wish(1.0, 1, "farma", str(n)), list(range(3, 10 + n)), []) for n in range(3)
    ]
    COSTS.update((seat.wish.name, Reads()) for seat in seats)
    try:
        for step in range(6):
            if step == 3:
                seats = [seats[2], seats[0]]
            rows.scores(seats, torch.randn(len(seats), V))
            for seat in seats:
                seat.output.append(5)
        assert COSTS["0"] == Reads(6, 6, 7 + 5)
        assert COSTS["1"] == Reads(3, 3, 8 + 2)
        assert COSTS["2"] == Reads(6, 6, 9 + 5)
    finally:
        COSTS.clear()
