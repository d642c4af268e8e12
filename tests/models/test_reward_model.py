"""Heads, padding, checkpoints, and what plain transformers and TRL make of them."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import (
    CheckpointCard,
    ensure_padding_token,
    fingerprint,
    read_card,
)
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.tensors import PairBatch
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm

KINDS = ("llama", "gpt_neox", "gpt2", "qwen3", "mistral", "gemma2")
HEADS = {
    "linear": HeadConfig(),
    "mlp": HeadConfig(layers="mlp"),
    "vocabulary": HeadConfig(kind="vocabulary"),
    "zeros": HeadConfig(kind="vocabulary", init="zeros"),
}


def make_batch(side="right", pad=2, lengths=(9, 5, 7), seed=0):
    torch.manual_seed(seed)
    width = max(lengths)
    ids = torch.full((len(lengths), width), pad)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        start = 0 if side == "right" else width - length
        ids[row, start : start + length] = torch.randint(3, 70, (length,))
        mask[row, start : start + length] = 1
    return PairBatch(
        ids, mask, mask.bool(), torch.zeros_like(mask).bool(), torch.zeros(len(ids)), paired=False
    )


def build(tmp_path, kind, head, **options):
    base = save_tiny(tmp_path / "base", kind, **options)
    torch.manual_seed(1)
    return RewardModel.from_base(base, HEADS[head]).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_padding_side_does_not_matter(tmp_path, kind, head):
    model = build(tmp_path, kind, head)
    with torch.no_grad():
        batches = [make_batch("right"), make_batch("left")]
        for batch in batches:
            batch.prefix_mask = batch.attention_mask.bool()
        right, left = (model(batch, {"prefix_rewards"}) for batch in batches)
        torch.testing.assert_close(
            right.sequence_rewards, left.sequence_rewards, atol=2e-5, rtol=2e-5
        )
    # Real tokens come row by row on either side.
    torch.testing.assert_close(
        right.prefix_rewards, left.prefix_rewards, atol=2e-5, rtol=2e-5
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_saved_and_loaded_weights_are_bit_equal(tmp_path, kind, head):
    model = build(tmp_path, kind, head)
    card = CheckpointCard(head=HEADS[head], objective="bradley_terry", seed=3)
    model.save_pretrained(tmp_path / "saved", character_tokenizer(), card)
    again = RewardModel.from_pretrained(tmp_path / "saved")
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    batch = make_batch()
    with torch.no_grad():
        torch.testing.assert_close(
            model(batch).sequence_rewards, again(batch).sequence_rewards, atol=1e-6, rtol=1e-6
        )
    tokens = len(character_tokenizer()) if HEADS[head].kind == "vocabulary" else 0
    assert read_card(tmp_path / "saved") == card.model_copy(update={"tokens": tokens})


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_gives_the_same_scalar_rewards(tmp_path, kind):
    model = build(tmp_path, kind, "linear")
    model.save_pretrained(
        tmp_path / "saved", character_tokenizer(), CheckpointCard(head=HEADS["linear"])
    )
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    batch = make_batch()
    with torch.no_grad():
        theirs = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        ours = model(batch).sequence_rewards
    torch.testing.assert_close(ours, theirs[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_plain_transformers_gives_the_same_vocabulary_rewards(tmp_path, kind, tied):
    tokenizer = character_tokenizer()
    base = tiny_causal_lm(kind, vocab_size=len(tokenizer), tie_word_embeddings=tied)
    base.save_pretrained(tmp_path / "base")
    model = RewardModel.from_base(tmp_path / "base", HEADS["vocabulary"]).eval()
    output, inputs = (
        model.carrier.get_output_embeddings().weight, model.carrier.get_input_embeddings().weight
    )
    assert output.data_ptr() != inputs.data_ptr()
    with torch.no_grad():
        output += 0.01 * torch.randn_like(output)  # so that a head tied again would show
    model.save_pretrained(tmp_path / "saved", tokenizer, CheckpointCard(head=HEADS["vocabulary"]))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    batch = make_batch()
    batch.prefix_mask = torch.zeros_like(batch.response_mask)
    batch.prefix_mask[:, 2] = True
    with torch.no_grad():
        logits = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        ours = model(batch, {"states", "best_next_token"})
    last = batch.last_positions
    rows = torch.arange(len(last))
    theirs = logits[rows, last - 1, batch.input_ids[rows, last]]
    torch.testing.assert_close(ours.sequence_rewards, theirs, atol=1e-5, rtol=1e-5)
    best = logits[:, 2].float().max(dim=-1).values
    torch.testing.assert_close(ours.best_next_token, best, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        model.head.next_token(ours.states.marked(batch.prefix_mask)), logits[:, 2].float(),
        atol=1e-5, rtol=1e-5,
    )


def test_untrained_lm_head_rewards_are_the_policys_logits(tmp_path):
    base = save_tiny(tmp_path / "base")
    policy = AutoModelForCausalLM.from_pretrained(base)
    model = RewardModel.from_base(base, HEADS["vocabulary"]).eval()
    batch = make_batch()
    with torch.no_grad():
        logits = policy(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        rewards = model.head.next_token(model(batch, {"states"}).states.marked(batch.response_mask))
    torch.testing.assert_close(rewards, logits[batch.response_mask], atol=1e-5, rtol=1e-5)


def test_zeros_head_has_no_opinion(tmp_path):
    model = build(tmp_path, "llama", "zeros")
    assert torch.equal(model(make_batch()).sequence_rewards, torch.zeros(3))


def test_vocabulary_row_of_one_token_has_no_opinion_on_either_side(tmp_path):
    model = build(tmp_path, "llama", "vocabulary")
    for side in ("right", "left"):
        output = model(make_batch(side, lengths=(4, 1)))
        assert output.sequence_rewards[1] == 0
        assert output.sequence_rewards[0] != 0


def test_mlp_head_starts_alive(tmp_path):
    """The published initialisation gives rewards of about 1e-7, which bfloat16 ties."""
    rewards = build(tmp_path, "llama", "mlp")(make_batch(lengths=(9, 8, 7, 6))).sequence_rewards
    assert rewards.std() > 1e-2


def test_card_of_a_foreign_classifier_and_refusals(tmp_path):
    base = save_tiny(tmp_path / "base")
    with pytest.raises(CheckpointError, match="without a card"):
        read_card(base)
    with pytest.raises(CheckpointError, match="there is none"):
        read_card(tmp_path / "nowhere")
    model = build(tmp_path, "llama", "linear")
    model.carrier.save_pretrained(tmp_path / "foreign")
    assert read_card(tmp_path / "foreign").head.kind == "scalar"
    card = CheckpointCard(head=HeadConfig())
    model.save_pretrained(tmp_path / "ours", character_tokenizer(), card)
    (tmp_path / "ours" / "rewardsteer.json").write_text('{"head": 3}')
    with pytest.raises(CheckpointError, match="damaged"):
        RewardModel.from_pretrained(tmp_path / "ours")


def test_padding_token_apart_from_end_of_text(tmp_path):
    tokenizer = character_tokenizer(pad_is_eos=True)
    model = AutoModelForCausalLM.from_pretrained(save_tiny(tmp_path / "b", pad_is_eos=True))
    rows = model.get_input_embeddings().weight.shape[0]
    ensure_padding_token(tokenizer, model)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.get_input_embeddings().weight.shape[0] == rows + 1


def test_fingerprint_follows_the_weights(tmp_path):
    model = build(tmp_path, "llama", "linear")
    tokenizer, card = character_tokenizer(), CheckpointCard(head=HeadConfig())
    for name in ("a", "b"):
        model.save_pretrained(tmp_path / name, tokenizer, card)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    with torch.no_grad():
        model.carrier.score.weight += 1
    model.save_pretrained(tmp_path / "b", tokenizer, card)
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_trl_reward_trainer_takes_the_scalar_checkpoint(tmp_path):
    from trl import RewardConfig, RewardTrainer

    model = build(tmp_path, "llama", "linear")
    model.save_pretrained(tmp_path / "s", character_tokenizer(), CheckpointCard(head=HeadConfig()))
    rows = [{"chosen": "1+1=2", "rejected": "1+1=3"}, {"chosen": "2+2=4", "rejected": "2+2=5"}]
    trainer = RewardTrainer(
        model=str(tmp_path / "s"),
        args=RewardConfig(
            output_dir=str(tmp_path / "trl"), max_steps=2, per_device_train_batch_size=2,
            report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, logging_steps=1,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(rows),
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)
