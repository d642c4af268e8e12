"""Rows that come, go, move and wait, against reading every prefix anew; needs no vLLM."""

import random

import pytest
import torch

from rewardsteer.decoding.engines.vllm_held import Held
from rewardsteer.decoding.engines.vllm_requests import Wish
from rewardsteer.decoding.engines.vllm_rows import GuidedRows, Seat
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
    held = Held(Scorer.load(root / "args"), costs={"one": Reads()})
    rows = GuidedRows(held.scorer, held)
    one, other = (Seat(Wish(1.0, 3, "args", name), [4, 5, 6], []) for name in ("one", "other"))
    logits = torch.arange(V).float()
    for seats in ([other], [other, one], [one, other], [other]):
        rows.scores(seats, logits.expand(len(seats), V))
        for seat in seats:
            seat.output.append(V - 1)
    assert held.costs["one"] == Reads(6, 2, 3 + 3 + 3)
    back = Seat(one.wish, one.prompt, one.output)
    rows.scores([other, back], logits.expand(2, V))
    assert held.costs == {"one": Reads(9, 3, 9 + 5 + 3)}


def test_unchanged_rows_are_read_by_what_they_grew(root):
    held = Held(Scorer.load(root / "farma"), costs={str(n): Reads() for n in range(3)})
    rows = GuidedRows(held.scorer, held)
    seats = [
        Seat(Wish(1.0, 1, "farma", str(n)), list(range(3, 10 + n)), []) for n in range(3)
    ]
    for step in range(6):
        if step == 3:
            seats = [seats[2], seats[0]]
        rows.scores(seats, torch.randn(len(seats), V))
        for seat in seats:
            seat.output.append(5)
    assert held.costs["0"] == Reads(6, 6, 7 + 5)
    assert held.costs["1"] == Reads(3, 3, 8 + 2)
    assert held.costs["2"] == Reads(6, 6, 9 + 5)


@pytest.mark.parametrize("long", [True, False])
def test_a_prompt_in_parts_is_read_once(root, long):
    """Its row asks at every step but does not grow until the engine has read it all."""
    held = Held(Scorer.load(root / "farma"), costs={"new": Reads(), "old": Reads()})
    rows = GuidedRows(held.scorer, held)
    old = Seat(Wish(1.0, 1, "farma", "old"), list(range(3, 23)), [])
    new = Seat(Wish(1.0, 1, "farma", "new"), list(range(3, 53 if long else 9)), [])
    for seats in ([old], [old, new], [new, old], [old, new], [old, new]):
        logits = torch.randn(len(seats), V)
        found = rows.scores(seats, logits)
        for seat, scores, row in zip(seats, found, logits, strict=True):
            torch.testing.assert_close(
                scores, plain(held.scorer, seat, row), atol=2e-4, rtol=1e-4
            )
        old.output.append(5)
    assert held.costs["new"].tokens == len(new.prompt)
    assert held.costs["old"].tokens == len(old.prompt) + 4


class TestWhatCannotBeGuided:
    """One row in the midst of others, by either head."""

    def make(self, root, name, names=("a", "bad", "b")):
        held = Held(Scorer.load(root / name), costs=dict.fromkeys(names, Reads()))
        prompts = {"a": [4, 5, 6, 7], "bad": [9, 70], "b": [11]}
        seats = [Seat(Wish(1.0, 3, name, one), list(prompts[one]), []) for one in names]
        return held, GuidedRows(held.scorer, held), seats

    def course(self, rows, seats, steps=4):
        """Scores by request, over some steps."""
        torch.manual_seed(0)
        found = {seat.wish.name: [] for seat in seats}
        for _ in range(steps):
            drawn = {name: torch.randn(V) for name in ("a", "bad", "b")}
            for row in drawn.values():
                row[70] = -100.0  # what is wrong with it stands in the prompt alone
            logits = torch.stack([drawn[seat.wish.name] for seat in seats])
            scores = rows.guided(seats, logits.clone())
            for seat, one, row in zip(seats, scores, logits, strict=True):
                found[seat.wish.name].append((one, row))
                seat.output.append(5)
        return found

    def check(self, root, name, rows, seats, held, caplog, words):
        found = self.course(rows, seats)
        _, others, alone = self.make(root, name, ("a", "b"))
        expected = self.course(others, alone)
        for one in ("a", "b"):
            for (scores, _), (right, _) in zip(found[one], expected[one], strict=True):
                torch.testing.assert_close(scores, right, atol=2e-4, rtol=1e-4)
        for scores, logits in found["bad"]:
            assert torch.equal(scores, logits)
        assert list(held.failed) == ["bad"]
        [line] = [one for one in caplog.messages if one.startswith("The request")]
        assert "The request bad goes on without its reward model" in line
        assert words in line

    @pytest.mark.parametrize("name", ["farma", "args"])
    def test_rewards_that_are_no_numbers(self, root, name, caplog):
        held, rows, seats = self.make(root, name)
        with torch.no_grad():
            held.scorer.reward_model.carrier.get_input_embeddings().weight[70] = float("nan")
        self.check(root, name, rows, seats, held, caplog, "NaN or infinite rewards")

    @pytest.mark.parametrize("name", ["farma", "args"])
    def test_an_exception_that_one_row_causes(self, root, name, caplog):
        held, rows, seats = self.make(root, name)
        forward = held.scorer.reward_model.backbone.forward

        def fails(input_ids=None, **options):
            if bool((input_ids == 70).any()):
                raise IndexError("index out of range in self")
            return forward(input_ids=input_ids, **options)

        held.scorer.reward_model.backbone.forward = fails
        self.check(root, name, rows, seats, held, caplog, "out of range")

    def test_an_exception_that_all_cause(self, root, caplog):
        held, rows, seats = self.make(root, "farma")
        held.scorer.next_token = lambda *_: 1 / 0
        found = self.course(rows, seats)
        assert all(torch.equal(scores, row) for some in found.values() for scores, row in some)
        assert sorted(held.failed) == ["a", "b", "bad"]
        assert len(caplog.messages) == 3

    def test_out_of_memory_costs_the_newer_half(self, root, caplog):
        held = Held(Scorer.load(root / "farma"))
        rows, next_token = GuidedRows(held.scorer, held), held.scorer.next_token

        def holds_two(ids, mask, cache):
            if len(ids) > 2:
                raise torch.OutOfMemoryError("full")
            return next_token(ids, mask, cache)

        held.scorer.next_token = holds_two
        seats = [Seat(Wish(1.0, 1, "farma"), [n], [5] * (9 - n)) for n in range(3, 8)]
        logits = torch.randn(5, V)
        scores = rows.guided(seats, logits)
        assert [seat.lost is None for seat in seats] == [True, True, False, False, False]
        for seat, one, row in zip(seats, scores, logits, strict=True):
            assert torch.equal(one, row) == (seat.lost is not None)
        assert len(caplog.messages) == 3

    def test_weights_that_leave_the_range(self, root, caplog):
        held, rows, seats = self.make(root, "farma")
        seats[1] = Seat(Wish(1e20, 3, "farma", "bad"), [9, 70], [])
        with torch.no_grad():
            held.scorer.reward_model.carrier.get_output_embeddings().weight.mul_(1e19)
        rows.guided(seats, torch.randn(3, V))
        assert seats[1].lost is not None
        assert seats[0].lost is seats[2].lost is None
        assert "float32's range" in caplog.text
