"""Checkpoints as published code saves them give that code's rewards after an import."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.scalar import build_mlp
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.published import import_checkpoint
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import save_tiny


@pytest.mark.parametrize("layers", ["linear", "mlp"])
def test_value_heads_of_goal_conditioned_rm(tmp_path, layers):
    folder = save_tiny(tmp_path / "published")
    torch.manual_seed(4)
    head = torch.nn.Linear(32, 1, bias=False) if layers == "linear" else build_mlp(32)
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    weights |= {f"value_head.{name}": value.detach() for name, value in head.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LLMForSequenceRegression"]
    (folder / "config.json").write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["import", str(folder), str(tmp_path / "rm")])
    assert done.exit_code == 0, done.output
    scorer = load_scorer(tmp_path / "rm", device="cpu")
    backbone = AutoModel.from_pretrained(folder).eval()
    prompts, responses = scorer.encode(["ab"], ["c"])
    with torch.no_grad():
        states = backbone(torch.tensor([prompts[0] + responses[0]])).last_hidden_state[0, -1]
        expected = float(head(states))
    assert scorer.score(["ab"], ["c"]) == pytest.approx([expected], abs=1e-5)


def test_causal_models_of_farma(tmp_path):
    folder = save_tiny(tmp_path / "published")
    template = '{"kind": "text", "append_eos": false}'
    done = CliRunner().invoke(
        app, ["import", str(folder), str(tmp_path / "rm"), "--template", template]
    )
    assert done.exit_code == 0, done.output
    scorer = load_scorer(tmp_path / "rm", device="cpu")
    assert scorer.head_kind == "vocabulary"
    ids = scorer.tokenizer("abc")["input_ids"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits
    expected = float(logits[0, -2, ids[-1]])
    assert scorer.score(["ab"], ["c"]) == pytest.approx([expected], abs=1e-5)


def test_a_card_written_by_hand_has_a_template(tmp_path):
    folder = save_tiny(tmp_path / "base")
    head = HeadConfig()
    card = CheckpointCard(head=head, objective="bradley_terry", template={"append_eos": True})
    RewardModel.from_base(folder, head).save_pretrained(
        tmp_path / "own", load_tokenizer(folder), card
    )
    done = CliRunner().invoke(app, ["import", str(tmp_path / "own"), str(tmp_path / "rm")])
    assert done.exit_code == 0, done.output
    assert "scalar head, template text" in done.stderr


def test_libraries_are_quiet_during_an_import(tmp_path, capsys, monkeypatch):
    folder = save_tiny(tmp_path / "published")
    # A program that set up no logging, and bars as transformers has them by itself.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    transformers_logging.enable_progress_bar()
    capsys.readouterr()
    import_checkpoint(folder, tmp_path / "called")
    assert capsys.readouterr().err == ""
    transformers_logging.enable_progress_bar()
    done = CliRunner().invoke(app, ["import", str(folder), str(tmp_path / "rm")])
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"Loading {folder} …",
        f"reward model: {tmp_path / 'rm'} (vocabulary head, template text)",
    ]
