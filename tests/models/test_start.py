"""What training may start from: reward models keep their head, adapters are merged."""

import gguf
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
)
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from rewardsteer.decoding.policy import load_policy
from rewardsteer.errors import CheckpointError, DataError
from rewardsteer.models.adapter_folder import base_fingerprint
from rewardsteer.models.causal import load_causal
from rewardsteer.models.checkpoint import CheckpointCard, ensure_padding_token, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.projection import install_projection
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.start import load_language_model
from rewardsteer.training.adapters import add_adapters
from rewardsteer.training.config import LoraSettings, TrainConfig
from rewardsteer.training.loading import build
from tests.chat import plain_reward, save_classifier, save_policy
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm

HEADS = {
    "linear": HeadConfig(kind="scalar"), "mlp": HeadConfig(kind="scalar", layers="mlp"),
    "vocabulary": HeadConfig(kind="vocabulary", init="zeros"),
}
TEXTS = (["ab", "c"], ["de fg", "xyz"])


def make(folder, base, head, seed=5):
    """A reward model with a head unlike any start."""
    torch.manual_seed(seed)
    model = RewardModel.from_base(base, head)
    tokenizer = character_tokenizer()
    ensure_padding_token(tokenizer, model.carrier)
    if head.kind == "vocabulary":
        install_projection(model.carrier)
    output = model.carrier.get_output_embeddings() if head.kind == "vocabulary" else (
        model.value_head or model.carrier.score
    )
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.normal_()
    model.save_pretrained(folder, tokenizer, CheckpointCard(head=head, base_model=str(base)))
    return folder




@pytest.mark.parametrize("name", HEADS)
def test_a_trained_reward_model_goes_on_from_its_head(tmp_path, name):
    head = HEADS[name]
    folder = make(tmp_path / "rm", save_tiny(tmp_path / "base"), head)
    first = load_scorer(folder, device="cpu")
    torch.manual_seed(11)
    again = Scorer(RewardModel.from_base(folder, head), first.tokenizer, first.template)
    assert again.score(*TEXTS) == pytest.approx(first.score(*TEXTS), abs=1e-6)


def test_a_head_that_cannot_go_on_is_told(tmp_path):
    base = save_tiny(tmp_path / "base")
    linear = make(tmp_path / "linear", base, HEADS["linear"])
    mlp = make(tmp_path / "mlp", base, HEADS["mlp"])
    with pytest.raises(CheckpointError, match=r"set head\.layers=linear"):
        RewardModel.from_base(linear, HEADS["mlp"])
    with pytest.raises(CheckpointError, match=r"set head\.layers=mlp"):
        RewardModel.from_base(mlp, HEADS["linear"])
    with pytest.raises(CheckpointError, match="no output layer to start a vocabulary head from"):
        RewardModel.from_base(linear, HEADS["vocabulary"])
    foreign = save_classifier(tmp_path / "foreign", "gemma")
    with pytest.raises(CheckpointError, match="no output layer to start a vocabulary head from"):
        RewardModel.from_base(foreign, HEADS["vocabulary"])


def test_a_foreign_reward_model_goes_on_from_its_head(tmp_path):
    folder = save_classifier(tmp_path / "rm", "chatml")
    kept = AutoModelForSequenceClassification.from_pretrained(folder).score.weight
    model = RewardModel.from_base(folder, HEADS["linear"])
    assert torch.equal(model.carrier.score.weight, kept)


@pytest.mark.parametrize(("name", "lost"), [
    ("linear", "model.norm.weight"), ("mlp", "model.norm.weight"),
    ("vocabulary", "model.norm.weight"), ("vocabulary", "model.layers.1.mlp.up_proj.weight"),
])
def test_weights_that_lack_parameters_are_no_start(tmp_path, name, lost):
    base = save_tiny(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    save_file({key: one for key, one in weights.items() if key != lost}, base / "model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"lack {lost}, which would be drawn at random"):
        RewardModel.from_base(base, HEADS[name])
    with pytest.raises(CheckpointError, match=f"lack {lost}"):
        load_policy(base)


def test_a_classifier_is_no_policy(tmp_path):
    """Its output layer would be drawn at random."""
    folder = save_classifier(tmp_path / "rm", "chatml")
    with pytest.raises(CheckpointError, match=r"lack lm_head\.weight"):
        load_policy(folder)
    with pytest.raises(CheckpointError, match=r"lack lm_head\.weight"):
        load_causal(folder, "cpu", None, {})


def test_a_reward_model_with_all_weights_of_a_policy_is_none(tmp_path):
    """With tied embeddings nothing is missing, and noise would be generated."""
    base = tiny_causal_lm()
    base.config.tie_word_embeddings = True
    base.tie_weights()
    base.save_pretrained(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    model.save_pretrained(tmp_path / "classifier")
    assert load_policy(tmp_path / "base") is not None
    with pytest.raises(CheckpointError, match=r"a reward model \(LlamaForSequenceClassification"):
        load_policy(tmp_path / "classifier")
    (tmp_path / "base" / "rewardsteer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is a reward model \(it has a rewardsteer.json"):
        load_policy(tmp_path / "base")


def lora(model, folder, **options):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], **options)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload()


@pytest.mark.parametrize("name", HEADS)
def test_an_adapter_of_a_language_model_is_merged(tmp_path, name, caplog):
    base = save_tiny(tmp_path / "base")
    expected = lora(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "sft", task_type="CAUSAL_LM"
    )
    caplog.set_level("DEBUG", logger="rewardsteer")
    model = RewardModel.from_base(tmp_path / "sft", HEADS[name])
    assert "is merged into" in caplog.text
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        ours = model.backbone(input_ids=ids).last_hidden_state
        theirs = expected.model(input_ids=ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-5)
    # No weight is left frozen that would be trained otherwise.
    plain = RewardModel.from_base(base, HEADS[name])
    assert _frozen(model) == _frozen(plain)
    assert load_tokenizer(tmp_path / "sft").get_vocab() == load_tokenizer(base).get_vocab()


def _frozen(model):
    return [name for name, weight in model.named_parameters() if not weight.requires_grad]


def test_an_adapter_that_trl_left_is_scored_and_continued(tmp_path):
    base = save_policy(tmp_path / "base", "qwen")
    torch.manual_seed(2)
    classifier = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    whole = lora(
        classifier, tmp_path / "adapter", task_type="SEQ_CLS", modules_to_save=["score"]
    )
    load_tokenizer(base).save_pretrained(tmp_path / "adapter")
    whole.save_pretrained(tmp_path / "whole")
    load_tokenizer(base).save_pretrained(tmp_path / "whole")
    messages = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]
    expected = plain_reward(tmp_path / "whole", messages)
    scorer = load_scorer(tmp_path / "adapter", device="cpu", dtype=torch.float32)
    assert scorer.score([messages[:1]], ["Yes."]) == pytest.approx([expected], abs=1e-5)
    model = RewardModel.from_base(tmp_path / "adapter", HEADS["linear"])
    assert torch.allclose(model.carrier.score.weight, whole.score.weight)


def test_our_own_adapter_goes_on(tmp_path):
    base = save_tiny(tmp_path / "base")
    torch.manual_seed(1)
    model = RewardModel.from_base(base, HEADS["linear"])
    add_adapters(model, LoraSettings(target_modules=["q_proj"]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    tokenizer = load_tokenizer(base)
    card = CheckpointCard(
        head=HEADS["linear"], base_model=str(base), base_fingerprint=base_fingerprint(str(base))
    )
    model.save_pretrained(tmp_path / "rm", tokenizer, card)
    first = load_scorer(tmp_path / "rm", device="cpu")
    again = RewardModel.from_base(tmp_path / "rm", HEADS["linear"])
    assert Scorer(again, tokenizer, first.template).score(*TEXTS) == pytest.approx(
        first.score(*TEXTS), abs=1e-5
    )
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_places_that_lead_nowhere_are_sentences(tmp_path):
    for load in (lambda place: load_scorer(place), load_tokenizer):
        with pytest.raises(CheckpointError, match=r"Expected a model folder at out/bt/model, th"):
            load("out/bt/model")
        with pytest.raises(CheckpointError, match=r"there is none; nor can .*hub") as caught:
            load("nobody/no-such-model")
        assert len(str(caught.value).splitlines()) == 1
        (tmp_path / "m.gguf").write_bytes(b"GGUF")
        with pytest.raises(CheckpointError, match="GGUF"):
            load(tmp_path / "m.gguf")
        with pytest.raises(CheckpointError, match="GGUF"):
            load(tmp_path)


def test_gguf_beside_a_configuration_is_refused_and_holds_no_reward_head(tmp_path):
    """What the sentence says of transformers is so: no architecture names a classifier's head."""
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], '
        '"id2label": {"0": "LABEL_0"}}'
    )
    with pytest.raises(CheckpointError, match=r"GGUF .* no reward heads .* gguf_file=NAME"):
        load_scorer(tmp_path, device="cpu")
    known = {
        name: value for value, name in gguf.MODEL_ARCH_NAMES.items()
        if name in GGUF_SUPPORTED_ARCHITECTURES
    }
    assert {"llama", "qwen2", "qwen3", "gemma2"} <= set(known)
    for name, value in known.items():
        assert gguf.get_tensor_name_map(value, 2).get_name("score") is None, name


def test_inputs_of_a_scorer(tmp_path):
    scorer = load_scorer(save_classifier(tmp_path / "rm", "gemma"), device="cpu")
    messages = [{"role": "user", "content": "Hi?"}]
    [one] = scorer.score([messages], ["Yes."])
    assert scorer.score("Hi?", "Yes.") == pytest.approx([one])
    with pytest.raises(DataError, match="a text on one side"):
        scorer.score(["Hi?"], "Yes.")
    with pytest.raises(DataError, match="2 prompts and 1 completions"):
        scorer.score(["Hi?", "Ho?"], ["Yes."])
    with pytest.raises(DataError, match="list of messages with role and content"):
        scorer.score(messages, ["Yes."])


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "t5"])
def test_training_starts_from_no_encoder(kind, tmp_path):
    """Some of transformers' causal language models are encoders unless told otherwise."""
    config = AutoConfig.for_model(
        kind, vocab_size=80, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, num_labels=1, num_heads=2, d_kv=16,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="encoders such as BERT"):
        RewardModel.from_base(tmp_path, HeadConfig())


def test_an_encoder_gives_no_rewards_of_next_tokens(tmp_path):
    tokenizer = character_tokenizer()
    BertForMaskedLM(BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64,
    )).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = TrainConfig(
        base_model=str(tmp_path), head={"kind": "vocabulary"}, prepared="x",
        phases=[{"objective": [{"name": "bradley_terry"}]}],
    )
    with pytest.raises(CheckpointError, match="attends to later tokens"):
        build(config, tokenizer)
    with pytest.raises(CheckpointError, match="attends to later tokens"):
        load_language_model(tmp_path)


@pytest.mark.parametrize(("gone", "said"), [
    ("config.json", "it holds no config.json"),
    ("tokenizer.json", "Expected a tokenizer in .*, it holds none of tokenizer.json"),
])
def test_a_folder_without_a_part_is_told_by_that_part(tmp_path, gone, said):
    save_tiny(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(CheckpointError, match=said):
        _ = load_tokenizer(tmp_path), RewardModel.from_base(tmp_path, HeadConfig())


def test_the_start_is_logged_once(tmp_path, caplog):
    folder = make(tmp_path / "rm", save_tiny(tmp_path / "base"), HEADS["linear"])
    caplog.set_level("INFO")
    for again in (False, True):
        RewardModel.from_base(folder, HEADS["linear"], again=again)
    assert caplog.text.count("Training continues from the head") == 1
