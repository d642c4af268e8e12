"""Folders of their own Python code: refused by name, run where the user trusts them."""

import json

import numpy as np
import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError, ConfigError, MismatchError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.recognition import find_kind
from rewardsteer.models.text_scorer import require_tokens
from tests.models.kinds.published import (
    COMPLETIONS,
    PROMPTS,
    backbone,
    chat_ids,
    check_order_and_batches,
    publish,
    random,
    states,
)

CODE = '''
import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class OwnReward(LlamaPreTrainedModel):
    """Two numbers per token, mixed in a way of its own."""

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.mixed = torch.nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **options):
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        value, scale = self.mixed(states.mean(dim=1)).unbind(dim=1)
        found = value * torch.sigmoid(scale)
        return RESULT
'''
RESULTS = {
    "logits": "SequenceClassifierOutput(logits=found[:, None])", "tuple": "(found[:, None],)",
    "tensor": "found", "several": "(states,)",
}


def own(folder, result="logits", **config):
    head = {"mixed.weight": random(2, 32), "mixed.bias": random(2, seed=1)}
    publish(folder, head, architectures=["OwnReward"],
            auto_map={"AutoModel": "modeling_own.OwnReward"}, **config)
    (folder / "modeling_own.py").write_text(CODE.replace("RESULT", RESULTS[result]))
    return folder, head


@pytest.mark.parametrize("result", ["logits", "tuple", "tensor"])
def test_trusted_code_gives_the_reward(tmp_path, result):
    folder, head = own(tmp_path / result, result)
    model, expected = backbone(folder), []
    for row in zip(PROMPTS, COMPLETIONS, strict=True):
        state = states(model, chat_ids(folder, *row)).mean(dim=0)
        value, scale = torch.nn.functional.linear(state, head["mixed.weight"], head["mixed.bias"])
        expected.append(float(value * scale.sigmoid()))
    scorer = check_order_and_batches(folder, np.array(expected), trust_remote_code=True)
    assert scorer.provenance()["code"] == "OwnReward"
    assert scorer.kind == "custom_code"
    with pytest.raises(MismatchError, match="scores whole texts"):
        require_tokens(scorer, "guides")


GATED = '''
from dataclasses import dataclass

import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput


@dataclass
class Found(ModelOutput):
    rewards: torch.FloatTensor = None
    gating_output: torch.FloatTensor = None
    score: torch.FloatTensor = None
    logits: torch.FloatTensor = None


class OwnReward(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.regression_layer = torch.nn.Linear(config.hidden_size, 12, bias=False)
        self.gating = torch.nn.Linear(config.hidden_size, 3, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **options):
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        last = states[:, -1]
        bins = self.regression_layer(last).view(-1, 3, 4)
        values = EXPECTED
        gate = self.gating(last).softmax(dim=-1)
        return Found(rewards=values, gating_output=gate, score=(gate * values).sum(dim=-1),
                     logits=values)
'''
EXPECTED = {
    "quantiles": ("bins.mean(dim=-1)", lambda bins: bins.mean(dim=-1)),
    "distribution": ("bins.softmax(dim=-1) @ torch.arange(4.0)",
                     lambda bins: (bins.softmax(dim=-1) * torch.tensor([0.0, 1, 2, 3])).sum(-1)),
}


@pytest.mark.parametrize("form", EXPECTED)
def test_expectations_that_a_gate_mixes_are_the_codes_score(tmp_path, form):
    """Quantiles of attributes as QRM has them, distributions over grades as LDL-Reward has them."""
    written, expectation = EXPECTED[form]
    head = {"regression_layer.weight": random(12, 32), "gating.weight": random(3, 32, seed=1)}
    folder = publish(
        tmp_path / "m", head, architectures=["OwnReward"],
        auto_map={"AutoModelForSequenceClassification": "modeling_own.OwnReward"},
    )
    (folder / "modeling_own.py").write_text(GATED.replace("EXPECTED", written))
    model, expected = backbone(folder), []
    for row in zip(PROMPTS, COMPLETIONS, strict=True):
        state = states(model, chat_ids(folder, *row))[-1]
        gate = torch.softmax(head["gating.weight"] @ state, dim=0)
        values = expectation((head["regression_layer.weight"] @ state).view(3, 4))
        expected.append(float((gate * values).sum()))
    scorer = check_order_and_batches(folder, np.array(expected), trust_remote_code=True)
    assert scorer.kind == "custom_code"
    with pytest.raises(CheckpointError, match="not run"):
        load_scorer(folder)


def test_ziya_writes_its_own_text(tmp_path):
    """Human:QUESTION, a blank line, Assistant:ANSWER, then end-of-text."""
    folder, head = own(tmp_path / "ziya")
    template = Template(kind="text", prompt="Human:{prompt}\n\nAssistant:", response="{response}")
    scorer = load_scorer(folder, trust_remote_code=True, device="cpu", template=template)
    tokenizer, model, expected = scorer.tokenizer, backbone(folder), []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        ids = tokenizer(f"Human:{prompt}\n\nAssistant:{completion}")["input_ids"]
        state = states(model, [*ids, tokenizer.eos_token_id]).mean(dim=0)
        value, scale = torch.nn.functional.linear(state, head["mixed.weight"], head["mixed.bias"])
        expected.append(float(value * scale.sigmoid()))
    np.testing.assert_allclose(scorer.score(PROMPTS, COMPLETIONS), expected, atol=1e-5)


def test_a_token_for_the_reward_is_appended(tmp_path):
    """As the code of InternLM2-Reward expects it; a row that ends with it gets no second one."""
    folder, head = own(tmp_path / "internlm", reward_token_id=7)
    scorer = load_scorer(folder, trust_remote_code=True, device="cpu", dtype=torch.float32)
    ids = [*chat_ids(folder, PROMPTS[0], COMPLETIONS[0]), 7]
    state = states(backbone(folder), ids).mean(dim=0)
    value, scale = torch.nn.functional.linear(state, head["mixed.weight"], head["mixed.bias"])
    [found] = scorer.score(PROMPTS[:1], COMPLETIONS[:1])
    assert found == pytest.approx(float(value * scale.sigmoid()), abs=1e-5)
    assert scorer._ended(ids) == ids


def test_code_is_refused_by_name(tmp_path):
    folder, _ = own(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"own \(modeling_own.OwnReward\), which is not run"):
        load_scorer(folder)
    with pytest.raises(ConfigError, match="pass trust_remote_code=True"):
        load_scorer(folder, kind="custom_code")
    assert find_kind(folder, trust_remote_code=True)[0] == "custom_code"


def test_code_that_gives_no_number_or_fails_is_a_sentence(tmp_path):
    folder, _ = own(tmp_path / "several", "several")
    scorer = load_scorer(folder, trust_remote_code=True, device="cpu")
    with pytest.raises(CheckpointError, match=r"one number per row .* got \[1, "):
        scorer.score(["a"], ["b"])
    (folder / "modeling_own.py").write_text("raise RuntimeError('no luck')")
    with pytest.raises(CheckpointError, match="cannot be loaded by its own code"):
        load_scorer(folder, trust_remote_code=True, device="cpu")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_own.C"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="Expected Python code for"):
        load_scorer(folder, kind="custom_code", trust_remote_code=True)


def test_heads_that_can_be_rebuilt_run_no_code(tmp_path):
    folder = publish(tmp_path / "m", {"v_head.weight": random(1, 32)},
                     auto_map={"AutoModel": "modeling_own.OwnReward"}, architectures=["OwnReward"])
    (folder / "modeling_own.py").write_text("raise RuntimeError('it was run')")
    scorer = load_scorer(folder, trust_remote_code=True, device="cpu")
    assert scorer.kind == "value_head"
