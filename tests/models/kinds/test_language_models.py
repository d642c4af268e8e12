"""Causal language models as reward models (FaRMA, Nemotron), and sentence pairs of encoders."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError, ConfigError, DataError, MismatchError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.recognition import find_kind
from rewardsteer.models.text_scorer import require_tokens
from tests.chat import save_policy
from tests.fakes import character_tokenizer, save_tiny, spread_weights
from tests.models.kinds.published import COMPLETIONS, PROMPTS, chat_ids, check_order_and_batches

ROWS = list(zip(PROMPTS, COMPLETIONS, strict=True))


def logits(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def test_farma_reads_the_logit_of_the_last_token(tmp_path):
    folder = save_policy(tmp_path / "m", "llama3")
    expected = []
    for row in ROWS:
        ids = chat_ids(folder, *row)
        expected.append(float(logits(folder, ids)[-2, ids[-1]]))
    scorer = check_order_and_batches(folder, np.array(expected), kind="farma")
    assert scorer.gives_next_token
    assert scorer.kind == "farma"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("token", [0, 5])
def test_nemotron_reads_one_logit_at_the_last_token(tmp_path, tied, token):
    folder = save_policy(tmp_path / "m", "llama3-pad-eos")
    if tied:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        model.save_pretrained(folder)
    expected = [float(logits(folder, chat_ids(folder, *row))[-1, token]) for row in ROWS]
    options = {} if token == 0 else {"logit": token}
    scorer = check_order_and_batches(folder, np.array(expected), kind="nemotron", **options)
    assert require_tokens(scorer, "guides") is scorer


def test_language_models_are_never_recognised(tmp_path):
    folder = save_policy(tmp_path / "m", "llama3")
    with pytest.raises(CheckpointError, match=r"kind='farma'.*kind='nemotron'"):
        find_kind(folder)
    with pytest.raises(CheckpointError, match=r"logit= below \d+"):
        load_scorer(folder, kind="nemotron", logit=10**6)


@pytest.mark.parametrize("kind", ["farma", "nemotron"])
def test_other_architectures_are_refused(tmp_path, kind):
    folder = save_encoder(tmp_path / "m", "bert")
    with pytest.raises(CheckpointError, match=f"for the kind {kind}, got BertFor"):
        load_scorer(folder, kind=kind)


# --- sentence pairs --------------------------------------------------------------------------


def save_encoder(folder, kind, *, labels=1):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=80, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, num_labels=labels,
        pooler_hidden_size=32, pad_token_id=2,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    spread_weights(model, 0.15)
    model.save_pretrained(folder)
    tokenizer = character_tokenizer()
    tokenizer.model_max_length = 60
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2"])
def test_encoders_score_question_and_answer_as_a_pair(tmp_path, kind):
    folder = save_encoder(tmp_path / "m", kind)
    assert find_kind(folder)[0] == "pair_encoder"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer, expected = character_tokenizer(), []
    for question, answer in ROWS:
        with torch.no_grad():
            rows = tokenizer(question, answer, return_tensors="pt")
            expected.append(float(model(**rows).logits[0, 0]))
    scorer = check_order_and_batches(folder, np.array(expected))
    check_order_and_batches(folder, -np.array(expected), negate=True)
    talk = [{"role": "user", "content": "Who?"}]
    assert scorer.score([talk], ["me"]) == pytest.approx([expected[1]], abs=1e-5)
    assert scorer.provenance()["template"] == "question and answer as a sentence pair"
    assert len(scorer.score([], [])) == 0
    with pytest.raises(MismatchError, match="scores whole texts"):
        require_tokens(scorer, "goal states")
    with pytest.raises(DataError, match=r"Row 2 has 64 tokens, .* at most 60"):
        scorer.score(["a", "b" * 60], ["c", "defg"])


def test_encoders_refuse_what_does_not_fit(tmp_path):
    folder = save_encoder(tmp_path / "m", "bert")
    with pytest.raises(ConfigError, match="leave out the template"):
        load_scorer(folder, template=Template())
    several = save_encoder(tmp_path / "k", "bert", labels=3)
    with pytest.raises(CheckpointError, match=r"gives \d labels, expected one"):
        load_scorer(several, kind="pair_encoder", device="cpu")
    with pytest.raises(CheckpointError, match="lack score"):
        load_scorer(save_tiny(tmp_path / "g", "gpt2"), kind="pair_encoder", device="cpu")
