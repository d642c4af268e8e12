"""Models that a device map spreads, or that are quantized, stay where loading puts them."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from rewardsteer.decoding.policy import load_policy
from rewardsteer.models import placement
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from tests.cli.kinds_of_models import process_model, scalar
from tests.doctor.faults import labelled
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm
from tests.models.kinds.test_attributes import armo

PROMPTS, COMPLETIONS = ["a", "What is 7+8?", "zz"], ["yes", "It is 15.", "a b c d"]
HEADS = {
    "linear": HeadConfig(), "mlp": HeadConfig(layers="mlp"),
    "vocabulary": HeadConfig(kind="vocabulary"),
}


def save(folder, head):
    torch.manual_seed(1)
    model = RewardModel.from_base(save_tiny(folder / "base"), HEADS[head])
    model.save_pretrained(folder / "model", character_tokenizer(), CheckpointCard(head=HEADS[head]))
    return folder / "model"


@pytest.mark.parametrize("head", HEADS)
def test_a_spread_reward_model_is_scored_where_it_lies(tmp_path, head):
    """Weights on the disk cannot be moved, and only the hooks of the layers bring them."""
    folder = save(tmp_path, head)
    top = "lm_head" if head == "vocabulary" else "score"
    last = "model.layers.1"
    spread = {
        "model.embed_tokens": "cpu", "model.layers.0": "cpu", last: "disk", "model.norm": "cpu",
        "model.rotary_emb": "cpu", top: "disk",
    }
    scorer = load_scorer(folder, device_map=spread, offload_folder=str(tmp_path / "offload"))
    carrier = scorer.reward_model.carrier
    assert carrier.hf_device_map == spread
    assert carrier.get_submodule(top).weight.device.type == "meta"
    assert next(carrier.get_submodule(last).parameters()).device.type == "meta"
    expected = load_scorer(folder, device="cpu")
    rewards = scorer.score(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(rewards, expected.score(PROMPTS, COMPLETIONS), rtol=1e-5, atol=1e-5)
    if head == "vocabulary":
        hidden = torch.linspace(-1, 1, 3 * scorer.hidden_size).view(3, -1)
        for one in ("next_token", "best_next_token"):
            ours = getattr(scorer.reward_model.head, one)(hidden)
            torch.testing.assert_close(ours, getattr(expected.reward_model.head, one)(hidden))
    assert carrier.get_submodule(top).weight.device.type == "meta"


@pytest.mark.parametrize("name", ["auto", "balanced"])
@pytest.mark.parametrize("head", HEADS)
def test_a_device_map_by_name_wins_over_the_default_device(tmp_path, monkeypatch, name, head):
    folder = save(tmp_path, head)
    expected = load_scorer(folder, device="cpu").score(PROMPTS, COMPLETIONS)
    monkeypatch.setattr(RewardModel, "to", lambda *_: pytest.fail("it was moved"))
    scorer = load_scorer(folder, device_map=name)
    np.testing.assert_allclose(scorer.score(PROMPTS, COMPLETIONS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_policy_is_not_moved(tmp_path, monkeypatch, bits):
    """bitsandbytes refuses ``.to``; the policy answers as plain transformers' does."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    folder = tmp_path / "policy"
    # Blocks of 64 numbers are rounded together.
    tiny_causal_lm(hidden=128).save_pretrained(folder)
    settings = {"quantization_config": BitsAndBytesConfig(**{f"load_in_{bits}bit": True})}
    plain = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}, **settings)
    policy = load_policy(folder, device="cpu", **settings)
    layer = policy.get_submodule("model.layers.0.mlp.up_proj")
    assert type(layer) is not torch.nn.Linear
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        ours, theirs = (model(input_ids=ids).logits for model in (policy, plain))
    torch.testing.assert_close(ours.float(), theirs.float())


def test_a_spread_policy_is_not_moved(tmp_path):
    folder = save_tiny(tmp_path / "policy")
    spread = {"model": "cpu", "lm_head": "disk"}
    policy = load_policy(folder, device_map=spread, offload_folder=str(tmp_path / "offload"))
    assert policy.hf_device_map == spread
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        ours = policy(input_ids=ids).logits
        theirs = load_policy(folder, device="cpu")(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["classifier", "attributes", "process", "several", "armorm"])
def test_a_reward_model_moves_after_an_engine_that_plans_its_device(tmp_path, monkeypatch, kind):
    """In vLLM the reward model of a strategy, of any kind, goes where it is told to, or where the
    policy is, once vLLM has taken its memory."""
    from rewardsteer.decoding.config import DecodingConfig
    from rewardsteer.decoding.engines import vllm_engine
    from rewardsteer.decoding.ensemble import combined
    from rewardsteer.decoding.generate import build_method

    make = {"attributes": lambda at: labelled(at, ["no", "yes"]), "process": process_model,
            "armorm": lambda at: armo(at)[0]}.get(kind, scalar)
    places = [make(tmp_path / name) for name in ("a", "b")[: 1 + (kind == "several")]]
    scorers = [load_scorer(place, device="cpu") for place in places]
    config = DecodingConfig(method="best_of_n", n=2)
    method = build_method(config, combined(scorers, [1.0] * len(scorers), config))
    seen = []

    def start(source, **options):
        seen.append({one.device.type for model in scorers for one in _weights(model)})

    monkeypatch.setattr(vllm_engine, "start", start)
    monkeypatch.setattr(vllm_engine, "built_for", lambda: "cpu")
    # Stands in for another device than the CPU.
    monkeypatch.setattr(vllm_engine, "choose_device", torch.device)
    policy = str(save_tiny(tmp_path / "policy") and tmp_path / "policy")
    for asked, at in ((None, "cpu"), ("meta", "meta")):
        engine = vllm_engine.VllmEngine.open(
            policy, character_tokenizer(), config, reward_device=asked
        )
        engine.begin(method, config, 32)
        assert {one.device.type for model in scorers for one in _weights(model)} == {at}
    assert seen == [{"cpu"}, {"cpu"}]


def _weights(scorer):
    """The parameters of the backbone."""
    inner = getattr(scorer, "inner", scorer)
    return list(getattr(inner, "reward_model", getattr(inner, "model", None)).parameters())


@pytest.mark.parametrize(("dtype", "native", "told"), [
    ("bfloat16", False, 1), ("bfloat16", True, 0), ("float32", False, 0),
])
def test_slow_bfloat16_is_told_once(tmp_path, monkeypatch, caplog, dtype, native, told):
    tiny_causal_lm().to(getattr(torch, dtype)).save_pretrained(tmp_path)
    monkeypatch.setattr(placement, "computes_bfloat16_on_cpu", lambda: native)
    placement._say_slow.cache_clear()
    for _ in range(2):
        load_policy(tmp_path, device="cpu")
    lines = [one for one in caplog.messages if "no bfloat16 instructions" in one]
    assert len(lines) == told
    load_policy(tmp_path, device="cpu", dtype=torch.float32)
    assert len([one for one in caplog.messages if "bfloat16" in one]) == told
