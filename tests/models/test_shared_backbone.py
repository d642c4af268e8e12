"""A reward model kept as an adapter, alone and on the policy's own weights, against two models."""

import json

import pytest
import torch
from safetensors.torch import load_file

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.errors import CheckpointError, MismatchError
from rewardsteer.models.adapter_folder import base_fingerprint
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.shared_backbone import SharedScorer
from rewardsteer.training.adapters import add_adapters
from rewardsteer.training.config import LoraSettings
from tests.fakes import save_tiny, tiny_causal_lm

PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: ", "zz top", "Who?"]


def keep_adapter(base, folder, kind, layers="linear", objective="bradley_terry"):
    """An adapter that differs from its base, with a head that differs too."""
    torch.manual_seed(5)
    head = HeadConfig(kind=kind, layers=layers)
    model = RewardModel.from_base(base, head)
    add_adapters(model, LoraSettings(rank=4, merge=False))
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, load_tokenizer(base), CheckpointCard(
        head=head, objective=objective, base_model=str(base),
        base_fingerprint=base_fingerprint(str(base)),
    ))
    return model.eval()


@pytest.fixture(scope="module", params=["llama", "gpt_neox", "gpt2"])
def base(request, tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base") / request.param, request.param, seed=7)


def policy_of(base):
    from rewardsteer.decoding.policy import load_policy

    return load_policy(base)


@pytest.mark.parametrize(("kind", "layers"), [
    ("scalar", "linear"), ("scalar", "mlp"), ("vocabulary", "linear"),
])
def test_a_kept_adapter_is_the_model_that_was_saved(base, tmp_path, kind, layers):
    saved = keep_adapter(base, tmp_path / "kept", kind, layers)
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "rewardsteer.json"} <= names
    assert "model.safetensors" not in names
    assert all(
        "lora" in name or "score" in name or kind == "vocabulary"
        for name in load_file(tmp_path / "kept" / "adapter_model.safetensors")
    )
    alone = load_scorer(tmp_path / "kept")
    shared = SharedScorer(policy_of(base), str(base), tmp_path / "kept")
    whole = Scorer(saved, alone.tokenizer, alone.template)
    texts = ["Fifteen.", "b", "Twelve of them", "no", "It was me."]
    expected = whole.score(PROMPTS, texts)
    for scorer in (alone, shared):
        torch.testing.assert_close(
            torch.tensor(scorer.score(PROMPTS, texts)), torch.tensor(expected),
            atol=1e-5, rtol=1e-5,
        )


@pytest.mark.parametrize(("method", "kind", "mode"), [
    ("farma", "vocabulary", "greedy"), ("farma", "vocabulary", "sample"),
    ("args", "scalar", "greedy"), ("best_of_n", "scalar", "sample"),
])
def test_one_backbone_generates_what_two_models_do(base, tmp_path, method, kind, mode):
    keep_adapter(base, tmp_path / "kept", kind)
    # Fewer places than prompts: rows finish, and new ones are read beside the others.
    config = DecodingConfig(
        method=method, mode=mode, max_new_tokens=9, batch_size=3, top_k=4, n=3, weight=2.0, seed=1
    )
    tokenizer, found = load_tokenizer(base), []
    shared = SharedScorer(policy_of(base), str(base), tmp_path / "kept")
    for policy, scorer in (
        (policy_of(base), load_scorer(tmp_path / "kept")), (shared.policy, shared)
    ):
        answers = list(generate(policy, tokenizer, PROMPTS, build_method(config, scorer), config))
        found.append([
            (one.token_ids, one.cost.rm_calls, one.cost.rm_tokens, one.cost.lm_tokens)
            for one in answers
        ])
    assert found[0] == found[1]
    plain = DecodingConfig(method="none", mode="greedy", max_new_tokens=9)
    ours, theirs = (
        [one.token_ids for one in generate(
            policy, tokenizer, PROMPTS, build_method(plain), plain
        )]
        for policy in (shared.policy, policy_of(base))
    )
    assert ours == theirs, "the adapters must not act on the policy"


def test_the_base_weights_are_there_once(base, tmp_path):
    keep_adapter(base, tmp_path / "kept", "scalar")
    policy = policy_of(base)
    before = sum(p.numel() for p in policy.parameters())
    shared = SharedScorer(policy, str(base), tmp_path / "kept")
    weights = {id(p): p.numel() for p in policy.parameters()}
    weights |= {id(p): p.numel() for p in shared.reward_model.parameters()}
    added = load_file(tmp_path / "kept" / "adapter_model.safetensors")
    assert sum(weights.values()) == before + sum(value.numel() for value in added.values())


def test_another_base_is_refused(tmp_path):
    base = save_tiny(tmp_path / "base", seed=7)
    keep_adapter(base, tmp_path / "kept", "scalar")
    other = save_tiny(tmp_path / "other", seed=8)
    with pytest.raises(MismatchError, match=r"was trained on .*base.* is another model; use the"):
        SharedScorer(policy_of(other), str(other), tmp_path / "kept")
    # The same weights under another name are the same base.
    copy = save_tiny(tmp_path / "copy", seed=7)
    SharedScorer(policy_of(copy), str(copy), tmp_path / "kept")
    tiny_causal_lm(seed=9, vocab_size=len(load_tokenizer(base))).save_pretrained(base)
    with pytest.raises(MismatchError, match="is another model"):
        load_scorer(tmp_path / "kept")


def test_whole_and_damaged_folders_are_refused(tmp_path):
    base = save_tiny(tmp_path / "base", seed=7)
    model = RewardModel.from_base(base, HeadConfig())
    model.save_pretrained(
        tmp_path / "whole", load_tokenizer(base), CheckpointCard(head=HeadConfig())
    )
    with pytest.raises(CheckpointError, match=r"whole model; train with lora.merge=false"):
        SharedScorer(policy_of(base), str(base), tmp_path / "whole")
    keep_adapter(base, tmp_path / "kept", "scalar")
    place = tmp_path / "kept" / "adapter_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"r": 3}))
    with pytest.raises(CheckpointError, match="does not fit Llama"):
        SharedScorer(policy_of(base), str(base), tmp_path / "kept")
