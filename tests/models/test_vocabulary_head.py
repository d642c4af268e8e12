"""The vocabulary head wherever its parameters may be: plain, compiled, adapted, sharded."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.projection import (
    RewardProjection,
    install_projection,
    open_vocabulary,
)
from rewardsteer.models.heads.vocabulary import VocabularyHead
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.bradley_terry import bradley_terry
from rewardsteer.objectives.max_constraint import max_constraint
from rewardsteer.training.adapters import add_adapters
from rewardsteer.training.config import LoraSettings
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm
from tests.processes import in_two_processes

CONFIG = HeadConfig(kind="vocabulary")


def build_model(kind="gpt_neox", dtype=torch.float64):
    base = tiny_causal_lm(kind, dtype=dtype)
    return RewardModel(open_vocabulary(base, CONFIG), CONFIG)


def make_rows(count=4, seed=0):
    """Rows of the partial set, all of the same few lengths."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length):
        return torch.randint(3, 70, (length,), generator=generator).tolist()

    return [
        {
            "id": str(number), "prompt_ids": ids(2 + number), "chosen_ids": ids(6),
            "rejected_ids": ids(4), "margin": 0.1 * number, "pair_lengths": [1],
            # Of unequal number, which the mean over processes must take into account.
            "chosen_lengths": list(range(1, 2 + number)),
        }
        for number in range(count)
    ]


def make_batch(rows):
    return to_batch(PairCollator(2, "right", paired=True, prefixes="chosen_lengths")(rows))


def our_loss(model, batch, temperature=None):
    needs = {"prefix_rewards", "best_next_token", "soft_next_token"}
    output = model(batch, needs, {temperature} - {None})
    constraint = max_constraint(output, batch, temperature=temperature).loss
    return bradley_terry(output, batch).loss + constraint


def dense_loss(model, rows, temperature=None):
    """The same from the logits of the Hugging Face model, one row at a time."""
    ranked, errors = [], []
    for row in rows:
        rewards = []
        for name in ("chosen_ids", "rejected_ids"):
            tokens = torch.tensor([row["prompt_ids"] + row[name]])
            logits = model.base(input_ids=tokens, use_cache=False).logits[0]
            rewards.append(logits[-2, tokens[0, -1]])
            if name == "chosen_ids":
                for length in row["chosen_lengths"]:
                    end = len(row["prompt_ids"]) + length - 1
                    best = logits[end].max()
                    if temperature is not None:
                        best = temperature * (logits[end] / temperature).exp().mean().log()
                    errors.append(logits[end - 1, tokens[0, end]] - best)
        ranked.append(-logsigmoid(rewards[0] - rewards[1] - row["margin"]))
    return torch.stack(ranked).mean() + torch.stack(errors).square().mean()


def assert_close(fast, plain, name=""):
    torch.testing.assert_close(
        fast, plain, atol=1e-8, rtol=1e-8, msg=lambda text: f"{name} {text}"
    )


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("temperature", [None, 0.5])
def test_equals_dense_logits(checkpointing, lora, temperature):
    model, rows = build_model(), make_rows()
    if lora:
        add_adapters(model, LoraSettings(rank=2, target_modules="all-linear"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # they start at zero, and A would get no gradient
                nn.init.normal_(parameter, std=0.1)
        model = model.double()
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    fast = our_loss(model, make_batch(rows), temperature)
    plain = dense_loss(model, rows, temperature)
    assert_close(fast, plain)
    ours, theirs = gradients(model, fast), gradients(model, plain)
    assert ours.keys() == theirs.keys()
    assert any("lm_head" in name for name in ours)
    for name, gradient in ours.items():
        assert_close(gradient, theirs[name], name)


def test_installed_layers_share_parameters_and_names():
    model = tiny_causal_lm("gpt2")
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    install_projection(model)
    assert isinstance(model.get_output_embeddings(), RewardProjection)
    assert before == {name: value.data_ptr() for name, value in model.state_dict().items()}
    installed = model.get_output_embeddings()
    install_projection(model)
    assert model.get_output_embeddings() is installed


@pytest.mark.parametrize("bias", [False, True])
def test_all_readings_of_one_layer(bias):
    torch.manual_seed(0)
    layer = nn.Linear(6, 40, bias=bias, dtype=torch.float64)
    head, hidden = VocabularyHead(layer), torch.randn(5, 6, dtype=torch.float64)
    rewards, tokens = layer(hidden), torch.tensor([3, 0, 39, 3, 8])
    torch.testing.assert_close(head.next_token(hidden), rewards)
    torch.testing.assert_close(head.best_next_token(hidden), rewards.max(dim=1).values)
    torch.testing.assert_close(
        head.soft_next_token(hidden, 0.7), 0.7 * (rewards / 0.7).exp().mean(dim=1).log()
    )
    taken = rewards.gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(head.rewards_of(hidden, tokens), taken)
    torch.testing.assert_close(head.rewards_of(hidden[None], tokens[None]), taken[None])
    assert head.vocabulary_size == 40
    assert head.projection.weight is layer.weight


def test_parameters_are_read_during_calls_only():
    """Sharded training holds a layer's parameters from the start of its call to the end of it."""
    model, batch = build_model(), make_batch(make_rows())
    layer = model.carrier.get_output_embeddings()
    whole = layer.weight.data

    def fill(*_):
        layer.weight.data = whole

    def empty(*_):
        layer.weight.data = whole.new_empty(0)

    with torch.no_grad():
        for temperature in (None, 0.5):
            want = our_loss(model, batch, temperature)
            hooks = [layer.register_forward_pre_hook(fill), layer.register_forward_hook(empty)]
            empty()
            assert_close(our_loss(model, batch, temperature), want)
            fill()
            for hook in hooks:
                hook.remove()


def test_a_resized_model_still_reads():
    model = build_model()
    model.carrier.resize_token_embeddings(91, mean_resizing=False)
    assert model.head.best_next_token(torch.randn(2, 32, dtype=torch.float64)).shape == (2,)
    install_projection(model.carrier)
    add_adapters(model, LoraSettings(rank=2, target_modules="all-linear"))
    assert model.head.best_next_token(torch.randn(2, 32, dtype=torch.float64)).shape == (2,)
    assert model.head.vocabulary_size == 91


def test_adapters_merge_into_a_layer_that_reads_and_saves(tmp_path):
    model = RewardModel.from_base(save_tiny(tmp_path / "base"), CONFIG)
    add_adapters(model, LoraSettings(rank=2, target_modules="all-linear"))
    with torch.no_grad():
        model.carrier.get_output_embeddings().weight.add_(0.3)
    batch = make_batch(make_rows())
    with torch.no_grad():
        wrapped = our_loss(model.eval(), batch, 0.5)
        model.merge_adapters()
        merged = our_loss(model, batch, 0.5)
        assert isinstance(model.carrier.get_output_embeddings(), RewardProjection)
        card = CheckpointCard(head=CONFIG)
        model.save_pretrained(tmp_path / "saved", character_tokenizer(), card)
        again = RewardModel.from_pretrained(tmp_path / "saved")
        assert isinstance(again.carrier.get_output_embeddings(), RewardProjection)
        loaded = our_loss(again, batch, 0.5)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
        assert type(plain.get_output_embeddings()) is nn.Linear
        prompt = batch.input_ids[:1, :4]
        ours, theirs = (
            one.generate(prompt, max_new_tokens=6, do_sample=False)
            for one in (again.carrier, plain)
        )
    torch.testing.assert_close(wrapped, merged, atol=1e-5, rtol=1e-5)
    assert torch.equal(merged, loaded)
    assert torch.equal(ours, theirs)


def read_all(head, hidden, tokens):
    """Every reading in one number."""
    reads = [
        head.best_next_token(hidden), head.soft_next_token(hidden, 0.7),
        head.rewards_of(hidden, tokens), head.next_token(hidden)[:, 0],
    ]
    return torch.stack(reads).square().sum()


def check_compiled(backend, autocast):
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = RewardProjection(16, 200)
    twin = copy.deepcopy(layer)
    head, eager = VocabularyHead(layer), VocabularyHead(twin)
    compiled = torch.compile(
        lambda hidden, tokens: read_all(head, hidden, tokens), fullgraph=True, backend=backend
    )
    for positions in (7, 12, 9):
        hidden, tokens = torch.randn(positions, 16), torch.randint(0, 200, (positions,))
        ours, theirs = (hidden.clone().requires_grad_() for _ in range(2))
        layer.zero_grad()
        twin.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            fast, slow = compiled(ours, tokens), read_all(eager, theirs, tokens)
        torch.testing.assert_close(fast, slow)
        fast.backward()
        slow.backward()
        torch.testing.assert_close(ours.grad, theirs.grad)
        torch.testing.assert_close(layer.weight.grad, twin.weight.grad)
        torch.testing.assert_close(layer.bias.grad, twin.bias.grad)


@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_equals_eager(autocast):
    check_compiled("aot_eager", autocast)


@pytest.mark.slow
def test_compiled_by_inductor_equals_eager():
    check_compiled("inductor", autocast=False)


def check_sharded(rank, units, temperature):
    """Two steps on this process's half of the rows; ``units``: what is sharded by itself."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    (plain, model), rows = (build_model() for _ in range(2)), make_rows()
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.backbone.layers:
        fully_shard(layer, mesh=mesh)
    if units == "projection":
        fully_shard(model.carrier.get_output_embeddings(), mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh)
    want_loss = dense_loss(plain, rows, temperature)
    want = gradients(plain, want_loss)
    # Twice: what one step leaves behind must not disturb the next.
    for _ in range(2):
        model.zero_grad()
        loss = our_loss(model, make_batch(rows[2 * rank : 2 * rank + 2]), temperature)
        loss.backward()
        assert_close(loss, want_loss)
        for name, parameter in model.named_parameters():
            assert_close(parameter.grad.full_tensor(), want[name], name)


def check_all_sharded(rank):
    for units in ("layers", "projection"):
        for temperature in (None, 0.5):
            check_sharded(rank, units, temperature)


@pytest.mark.slow
def test_two_sharded_processes_equal_one(tmp_path, warm):
    """Loss and gradients under FSDP2, the output layer gathered with the rest or by itself, in
    which case its parameters are there during its call only."""
    in_two_processes(warm, check_all_sharded, tmp_path)
