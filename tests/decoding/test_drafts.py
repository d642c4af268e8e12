"""Drafts change no answer: token by token what is drawn without them, in fewer forward passes."""

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.batch import Batch
from rewardsteer.decoding.engines.transformers.drafting import DraftBatch, from_itself
from rewardsteer.decoding.engines.transformers.side_by_side import open_batch
from rewardsteer.decoding.ensemble import RewardEnsemble
from rewardsteer.decoding.guides.cd import Cd
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.decoding.guides.none import Plain
from rewardsteer.decoding.sample import Encoded
from rewardsteer.models.batching import left_pad
from rewardsteer.models.prefix_reader import PrefixReader
from tests.decoding.tables import TableEngine, decode
from tests.decoding.test_gates import Tiny


class DraftEngine(TableEngine):
    """A tiny policy, with the batches of the engine itself."""

    def __init__(self, policy, places, config):
        super().__init__(None, places, stop_ids=[3])
        self.policy, self.made = policy, []
        self.begin(None, config, 0)

    def _open(self, guide):
        self.made.append(open_batch(self.policy, guide, self._drafts))
        return self.made[-1]


def respond(policy, guide, config, places=3):
    """Tokens and costs of four prompts, and what kind of batch they were in."""
    engine = DraftEngine(policy, places, config)
    prompts = [Encoded(str(n), [1 + (n + k) % 9 for k in range(1 + n % 3)]) for n in range(4)]
    found = decode(engine, guide, config, prompts)
    [kind] = {type(batch) for batch in engine.made}
    return [(one.sample.token_ids, cost) for one, cost in found], kind


@pytest.fixture(scope="module")
def models():
    return Tiny("vocabulary", seed=7).model, Tiny("vocabulary"), Tiny("vocabulary", seed=2)


SETTINGS = {
    "greedy": {"mode": "greedy"}, "sharp": {"temperature": 0.1},
    "sampled": {"temperature": 0.7, "top_p": 0.9, "max_kl": 0.3},
    "penalties": {"mode": "greedy", "repetition_penalty": 1.3, "min_tokens": 6},
}


@pytest.mark.parametrize("kind", ["ngram", "policy"])
@pytest.mark.parametrize("name", SETTINGS)
def test_answers_are_those_without_drafts(models, name, kind):
    policy, scorer, other = models
    plain = DecodingConfig(top_k=0, max_new_tokens=14, weight=0.7, seed=4, **SETTINGS[name])
    drafted = plain.model_copy(update={"draft": kind, "draft_tokens": 3})
    scorers = RewardEnsemble([scorer, other], [1.0, -0.5]) if name == "sharp" else scorer
    guide = Plain(None, plain) if name == "penalties" else Farma(scorers, plain)
    ours, used = respond(policy, guide, drafted)
    without, ordinary = respond(policy, guide, plain)
    assert (used, ordinary) == (DraftBatch, Batch)
    assert [ids for ids, _ in ours] == [ids for ids, _ in without]
    assert any(len(ids) > 6 for ids, _ in ours)
    for (ids, cost), (_, other) in zip(ours, without, strict=True):
        assert cost.lm_calls == len(ids)
        assert cost.guided_steps == other.guided_steps
    passes, before = (
        [(c.lm_forwards, c.rm_forwards) for _, c in one] for one in (ours, without)
    )
    if name in ("greedy", "sharp"):
        # Tiny models repeat themselves, so many drafts hold.
        assert sum(rm for _, rm in passes) < sum(rm for _, rm in before)
        if kind == "ngram":
            assert sum(lm for lm, _ in passes) < sum(lm for lm, _ in before)


def test_answers_do_not_depend_on_the_batch(models):
    policy, scorer, _ = models
    config = DecodingConfig(
        top_k=0, max_new_tokens=14, temperature=0.5, seed=4, draft="ngram", draft_tokens=3
    )
    one, many = (respond(policy, Farma(scorer, config), config, n)[0] for n in (1, 4))
    assert [ids for ids, _ in one] == [ids for ids, _ in many]
    for (_, ours), (_, theirs) in zip(one, many, strict=True):
        assert ours.model_copy(update={"seconds": 0.0}) == theirs.model_copy(
            update={"seconds": 0.0}
        )


def test_where_drafts_cannot_be_verified_there_are_none(models):
    policy, _, _ = models
    config = DecodingConfig(top_k=3, max_new_tokens=4, draft="ngram")
    assert respond(policy, Cd(Tiny("scalar"), config), config)[1] is Batch
    gated = config.model_copy(update={"gate": "first", "gate_share": 0.5})
    assert respond(policy, Farma(models[1], gated), gated)[1] is Batch


def test_the_last_positions_are_those_of_whole_passes(models):
    policy = models[0]
    reader, rows = PrefixReader(policy), [[1, 2, 3, 4, 5], [6, 7, 8]]
    ids, mask = left_pad(rows)
    with torch.no_grad():
        whole = [policy(torch.tensor([row])).logits[0] for row in rows]
        for _ in range(2):  # anew, and from the cache
            tail = reader.tail(ids, mask, [3, 3])
            for row, logits in enumerate(whole):
                torch.testing.assert_close(tail[row], logits[-3:])
        longer = [[1, 2, 3, 9, 9], [6, 7, 8, 1, 2]]  # taken back; grown by two
        before = list(reader.tokens)
        tail = reader.tail(*left_pad(longer), [2, 2])
        for row, tokens in enumerate(longer):
            torch.testing.assert_close(tail[row], policy(torch.tensor([tokens])).logits[0, -2:])
        assert [now - then for now, then in zip(reader.tokens, before, strict=True)] == [2, 2]


def test_prompt_lookup():
    assert from_itself([1, 2, 3, 4, 9, 2, 3], 2) == [4, 9]
    assert from_itself([5, 1, 7, 1, 8, 1], 3) == [8, 1, 8]
    assert from_itself([1, 1, 1, 1], 4) == [1, 1, 1, 1]
    assert from_itself([1, 2, 3], 2) == []
    assert from_itself([1, 1], 0) == []
