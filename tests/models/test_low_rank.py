"""Vocabulary heads beside the output layer: zero start, all readings, saved folders, folding."""

import pytest
import torch
from torch.nn.functional import linear

from rewardsteer.configuration import load_config
from rewardsteer.decoding.engines.vllm_settings import vocabulary_card
from rewardsteer.errors import CheckpointError, ConfigError, MismatchError
from rewardsteer.kernels.vocabulary_soft import OutputLayer
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.published import fold, import_checkpoint
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.tensors import PolicyBackup
from tests.fakes import save_tiny

HEADS = [
    {"layers": "low_rank", "rank": 3}, {"layers": "embedding"}, {"layers": "embedding", "rank": 2},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base"))


def head_model(base, head, *, trained=True):
    config = HeadConfig(kind="vocabulary", **head)
    model = RewardModel.from_base(base, config)
    config.head_class.resized(model.carrier, load_tokenizer(base))
    if trained:
        torch.manual_seed(1)
        for parameter in model.value_head.parameters():
            parameter.data.normal_(std=0.3)
    return model


@pytest.mark.parametrize("head", HEADS)
def test_head_begins_as_zeros_and_leaves_the_language_model_alone(base, head):
    model = head_model(base, head, trained=False)
    hidden = torch.randn(5, model.config.hidden_size)
    assert not model.head.next_token(hidden).any()
    trained = [name for name, one in model.named_parameters()
               if name.startswith("value_head") and one.requires_grad]
    assert trained
    assert not model.carrier.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize(("head", "rank"), [
    (HEADS[0], 3), (HEADS[1], 32), (HEADS[2], 2), ({"layers": "low_rank", "rank": 40}, 32),
])
def test_a_start_from_the_output_layer_is_its_best_approximation(base, head, rank):
    model = head_model(base, {**head, "init": "lm_head"}, trained=False)
    layer = model.carrier.get_output_embeddings()
    assert layer.in_features == 32
    u, s, v = torch.linalg.svd(layer.weight, full_matrices=False)
    best = u[:, :rank] * s[:rank] @ v[:rank]
    hidden = torch.randn(5, 32)
    torch.testing.assert_close(
        model.head.next_token(hidden), hidden @ best.T, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("head", HEADS)
def test_every_reading_is_that_of_the_folded_layer(base, head):
    model = head_model(base, head)
    hidden = torch.randn(6, model.config.hidden_size)
    count = model.head.token_count
    layer = model.carrier.get_output_embeddings()
    weight = model.value_head.folded(layer)
    rewards = linear(hidden, weight)
    policy = OutputLayer(torch.randn(6, 4), torch.randn(len(weight), 4))
    p = policy.logits(slice(None))[:, :count].softmax(-1)
    tokens, several = torch.randint(0, count, (6,)), torch.randint(0, count, (6, 4))
    real = rewards[:, :count]
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(model.head.next_token(hidden), rewards, **close)
    torch.testing.assert_close(model.head.best_next_token(hidden), real.amax(1), **close)
    torch.testing.assert_close(
        model.head.soft_next_token(hidden, 0.7), 0.7 * (real / 0.7).exp().mean(1).log(), **close
    )
    torch.testing.assert_close(
        model.head.rewards_of(hidden, tokens), rewards.gather(1, tokens[:, None])[:, 0], **close
    )
    torch.testing.assert_close(
        model.head.candidate_rewards(hidden, several), rewards.gather(1, several), **close
    )
    torch.testing.assert_close(
        model.head.policy_backup(hidden, PolicyBackup("mean"), policy), (p * real).sum(1), **close
    )


@pytest.mark.parametrize("head", HEADS)
def test_saved_folder_and_folded_folder_give_the_same_rewards(base, tmp_path, head):
    tokenizer = load_tokenizer(base)
    model = head_model(base, head)
    before = model.carrier.get_output_embeddings().weight.clone()
    card = CheckpointCard(head=model.head_config, template={"kind": "text"})
    model.save_pretrained(tmp_path / "own", tokenizer, card)
    own = load_scorer(tmp_path / "own")
    torch.testing.assert_close(
        own.reward_model.carrier.get_output_embeddings().weight, before
    )
    ids = torch.randint(3, 12, (3, 7))
    mask = torch.ones_like(ids)
    rewards = own.next_token(ids, mask)
    whole = own.score(["1+2="] * 2, ["3", "44"])

    import_checkpoint(tmp_path / "own", tmp_path / "folded", folded=True)
    full = load_scorer(tmp_path / "folded")
    assert not (tmp_path / "folded" / "value_head.safetensors").exists()
    torch.testing.assert_close(full.next_token(ids, mask), rewards, atol=1e-6, rtol=1e-6)
    assert full.score(["1+2="] * 2, ["3", "44"]) == pytest.approx(whole, abs=1e-5)


def test_vllm_refuses_a_head_that_is_not_folded(base, tmp_path):
    model = head_model(base, HEADS[0])
    card = CheckpointCard(head=model.head_config, template={"kind": "text"})
    model.save_pretrained(tmp_path / "own", load_tokenizer(base), card)
    with pytest.raises(MismatchError, match="OUT --fold"):
        vocabulary_card("own", tmp_path / "own")


def test_folding_refuses_a_full_head(base):
    with pytest.raises(MismatchError, match="to fold"):
        fold(RewardModel.from_base(base, HeadConfig(kind="vocabulary")))


def test_damaged_and_other_heads_are_refused(base, tmp_path):
    model = head_model(base, HEADS[0])
    card = CheckpointCard(head=model.head_config, template={"kind": "text"})
    model.save_pretrained(tmp_path / "own", load_tokenizer(base), card)
    with pytest.raises(CheckpointError, match=r"head\.layers=low_rank to go on"):
        RewardModel.from_base(tmp_path / "own", HeadConfig(kind="vocabulary"))
    again = RewardModel.from_base(tmp_path / "own", model.head_config)
    torch.testing.assert_close(again.value_head.up.weight, model.value_head.up.weight)
    (tmp_path / "own" / "value_head.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Expected the head's parameters"):
        load_scorer(tmp_path / "own")


@pytest.mark.parametrize(("head", "message"), [
    ({"layers": "low_rank"}, "needs a rank"), ({"layers": "mlp"}, "not mlp"),
    ({"rank": 4}, "a rank belongs to"),
])
def test_settings_that_name_no_head_are_refused(head, message):
    with pytest.raises(ConfigError, match=message):
        load_config(HeadConfig, {"kind": "vocabulary", **head})
