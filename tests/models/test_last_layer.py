"""Rewards from a last layer that works at the ends of rows alone, against all states of all."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.data.packing import PackingCosts
from rewardsteer.models import last_layer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.last_layer import at_ends, takes_ends
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.tensors import TokenStates
from rewardsteer.training.config import TermConfig
from rewardsteer.training.fit import build_objective
from tests.models.test_reading import KINDS, PROMPTS, make, rows_of


@torch.no_grad()
def plainly(scorer, prompts, responses):
    """Every row by itself, all of its states."""
    model, rewards = scorer.reward_model, []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([[*prompt, *response]])
        states = model.hidden_states(ids, torch.ones_like(ids))
        last = torch.tensor([ids.shape[1] - 1])
        rewards.append(model.head.sequence_rewards(states, ids, last).item())
    return rewards


def rows():
    """Of all lengths from 1 on."""
    prompts, responses = rows_of(PROMPTS)
    return [*prompts, [], [4]], [*responses, [5], [6]]


@pytest.mark.parametrize("head", ["scalar", "vocabulary"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture(tmp_path, kind, head):
    prompts, responses = rows()
    for scorer in make(tmp_path, kind, head):
        assert takes_ends(scorer.reward_model)
        expected = plainly(scorer, prompts, responses)
        for options in ({"batch_size": 5}, {"batch_size": None, "batch_tokens": 60}):
            found = scorer.score_ids(prompts, responses, **options)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_a_window_shorter_than_rows(tmp_path, kind):
    prompts, responses = rows()
    for scorer in make(tmp_path, kind, sliding_window=8):
        np.testing.assert_allclose(
            scorer.score_ids(prompts, responses), plainly(scorer, prompts, responses), rtol=1e-9
        )


def test_the_last_layer_takes_two_tokens_a_row(tmp_path, monkeypatch):
    prompts, responses = rows_of(PROMPTS)
    scorer = make(tmp_path)[1]
    takes_ends(scorer.reward_model)  # the trial
    kind, taken = type(scorer.reward_model.backbone.layers[-1].mlp), []
    real = kind.forward

    def forward(self, states):
        taken.append(states.shape[:-1].numel())
        return real(self, states)

    monkeypatch.setattr(kind, "forward", forward)
    scorer.score_ids(prompts, responses, batch_size=4)
    assert set(taken[1::2]) == {2 * 4}
    assert min(taken[::2]) > 2 * 4
    taken.clear()
    scorer.token_scores_ids(prompts, responses, batch_size=4)
    assert min(taken) > 2 * 4


def test_the_model_is_left_as_it_is(tmp_path):
    model = make(tmp_path)[0].reward_model
    modules = dict(model.named_modules())
    settings = {name: vars(module).copy() for name, module in modules.items()}
    view = at_ends(model, torch.tensor([[0, 1]]), 4)
    assert dict(model.named_modules()) == modules
    for name, module in modules.items():
        assert vars(module) == settings[name]
    assert model.config._attn_implementation == "sdpa"
    ours, theirs = dict(model.named_parameters()), dict(view.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)


def test_threads_do_not_disturb_each_other(tmp_path):
    scorer = make(tmp_path)[0]
    prompts, responses = rows_of(PROMPTS)
    whole = scorer.score_ids(prompts, responses)
    by_token = scorer.token_scores_ids(prompts, responses)

    def score(number):
        if number % 2:
            found = scorer.score_ids(prompts, responses, batch_size=number)
            np.testing.assert_allclose(found, whole, rtol=1e-9)
            return
        found = scorer.token_scores_ids(prompts, responses, batch_size=number + 1)
        for one, other in zip(found, by_token, strict=True):
            np.testing.assert_allclose(one.rewards, other.rewards, rtol=1e-9, atol=1e-9)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(score, range(12)))


class Mixing(torch.nn.Module):
    """A feed-forward part in which tokens see each other."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, states):
        return self.inner(states) + states.cumsum(1) / 10


def refuse(model):
    model.backbone.config._attn_implementation = "eager"


def mix(model):
    model.backbone.layers[-1].mlp = Mixing(model.backbone.layers[-1].mlp)


def rename(model):
    model.backbone.layers[-1].feed_forward = model.backbone.layers[-1].mlp
    del model.backbone.layers[-1].mlp
    model.backbone.layers[-1].register_forward_pre_hook(
        lambda layer, *_: object.__setattr__(layer, "mlp", layer.feed_forward)
    )


@pytest.mark.parametrize("change", [refuse, mix, rename])
def test_other_layers_read_all_tokens(tmp_path, change, caplog):
    scorer = make(tmp_path)[1]
    change(scorer.reward_model)
    prompts, responses = rows()
    with caplog.at_level(logging.DEBUG, logger=last_layer.__name__):
        found = scorer.score_ids(prompts, responses)
    assert "the last layer of LlamaModel reads all tokens" in caplog.text
    ours = [one for one in caplog.records if one.name == last_layer.__name__]
    assert {one.levelno for one in ours} == {logging.DEBUG}, "none for the terminal"
    # Eager attention takes its softmax in float32.
    np.testing.assert_allclose(found, plainly(scorer, prompts, responses), rtol=1e-5)


def test_a_model_without_attention(tmp_path):
    base = MambaForCausalLM(MambaConfig(vocab_size=80, hidden_size=16, num_hidden_layers=1))
    assert not takes_ends(RewardModel(base, HeadConfig(kind="vocabulary")))


def comparisons(side, packed):
    """Pairs of all lengths, responses of one token and common beginnings among them, as a batch."""
    draw = np.random.default_rng(3)
    rows = []
    for number in range(6):
        prompt = draw.integers(3, 60, draw.integers(1, 25)).tolist()
        chosen, rejected = (draw.integers(3, 60, length).tolist() for length in (1 + number, 7))
        if number % 2:
            rejected = [*chosen[:1], *rejected]
        rows.append({
            "id": str(number), "prompt_ids": prompt, "chosen_ids": chosen,
            "rejected_ids": rejected[: max(1, 7 - 2 * number)], "margin": 0.1 * number,
        })
    costs = PackingCosts(0.0) if packed else None
    batch = to_batch(PairCollator(1, side, True, None, costs)(rows))
    assert (batch.packing is not None) == packed
    return batch


OBJECTIVES = {
    "bradley_terry": [TermConfig(name="bradley_terry")],
    **{
        form: [
            TermConfig(name="bradley_terry"),
            TermConfig(name="goal_contrastive", options={"form": form, "negatives": 3}),
        ]
        for form in ("infonce", "future", "published")
    },
}


def loss_and_gradients(model, batch, objective, *, everywhere):
    model.zero_grad()
    looks_at = None if everywhere else objective.looks_at(batch)
    loss = model(batch, objective, looks_at=looks_at).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("head", ["scalar", "vocabulary"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients(tmp_path, kind, head, packed, side, dtype, tolerance):
    model = make(tmp_path, kind, head, dtype)[0].reward_model
    assert takes_ends(model)
    batch = comparisons(side, packed)
    batch.margin = batch.margin.to(dtype)
    # Every form once, in turn.
    objectives = list(OBJECTIVES) if kind == "llama" else ["bradley_terry", "infonce"]
    for name in objectives:
        objective = build_objective(OBJECTIVES[name])
        torch.testing.assert_close(
            loss_and_gradients(model, batch, objective, everywhere=False),
            loss_and_gradients(model, batch, objective, everywhere=True),
            rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_looks_where_it_says(tmp_path, name):
    """Other states may be anything."""
    model = make(tmp_path)[0].reward_model
    batch, objective = comparisons("left", False), build_objective(OBJECTIVES[name])
    states = model(batch).states
    marked = objective.looks_at(batch)
    assert marked.any() == (name != "bradley_terry")
    assert marked.sum() < batch.attention_mask.sum()
    wrong = TokenStates(states.flat.clone(), states.index)
    ends = torch.zeros_like(marked).scatter(1, batch.last_positions[:, None], True)
    wrong.flat[states.index[~marked & ~ends]] = torch.nan
    losses = [
        objective(replace(model(batch), states=given), batch).loss for given in (states, wrong)
    ]
    torch.testing.assert_close(*losses)
    assert losses[1].isfinite()


def test_under_gradient_checkpointing(tmp_path):
    found = []
    for checkpointing in (False, True):
        model = make(tmp_path)[0].reward_model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        objective = build_objective(OBJECTIVES["infonce"])
        found.append(loss_and_gradients(
            model, comparisons("right", True), objective, everywhere=not checkpointing
        ))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_other_states_are_not_to_be_had(tmp_path):
    model, batch = make(tmp_path)[0].reward_model, comparisons("right", False)
    output = model(batch, looks_at=torch.zeros_like(batch.response_mask))
    assert len(output.states.flat) == 12
    with pytest.raises(IndexError):
        output.rewards_at(torch.ones_like(batch.response_mask))


@pytest.mark.parametrize(("terms", "known"), [
    (["bradley_terry"], True), (["bradley_terry", "goal_contrastive"], True),
    (["goal_contrastive"], True), (["partial"], False), (["max_constraint"], False),
    (["autoregressive"], False), (["bradley_terry", "partial"], False),
])
def test_which_objectives_say_where_they_look(terms, known):
    objective = build_objective([TermConfig(name=name, weight=0.5) for name in terms])
    assert (objective.looks_at is not None) is known
