"""A head on the policy's own states: the tokens of two models, and no pass of its own."""

from pathlib import Path

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.errors import CheckpointError, MismatchError
from rewardsteer.models.checkpoint import CheckpointCard, fingerprint, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.policy_states import PolicyStateScorer, sharing_scorer
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import save_tiny

PROMPTS = ["1+1=", "22+3=", "0", "4-1+2=", "9"]
HEAD = HeadConfig(kind="vocabulary", layers="low_rank", rank=3)


def save_head(folder: Path, base: Path, *, own_states: bool = True) -> Path:
    model = RewardModel.from_base(base, HEAD)
    torch.manual_seed(1)
    for parameter in model.value_head.parameters():
        parameter.data.normal_()
    card = CheckpointCard(
        head=HEAD, template={"kind": "text"}, objective="distillation", base_model=str(base),
        base_fingerprint=fingerprint(base) if own_states else "",
    )
    model.save_pretrained(folder, load_tokenizer(base), card)
    return folder


@pytest.mark.parametrize("mode", ["greedy", "sample"])
def test_one_pass_generates_what_two_models_do(tmp_path, mode):
    base = save_tiny(tmp_path / "base")
    head, tokenizer = save_head(tmp_path / "head", base), load_tokenizer(base)
    # Fewer places than prompts: rows finish, and new ones are read beside the others.
    config = DecodingConfig(
        method="farma", mode=mode, max_new_tokens=9, batch_size=3, weight=2.0, seed=1
    )
    policy = load_policy(base, device="cpu")
    shared = sharing_scorer(policy, str(base), head)
    assert isinstance(shared, PolicyStateScorer)
    found = []
    for scorer in (load_scorer(head, device="cpu"), shared):
        found.append(list(generate(
            policy, tokenizer, PROMPTS, build_method(config, scorer), config
        )))
    assert [one.token_ids for one in found[0]] == [one.token_ids for one in found[1]]
    assert all(one.cost.rm_forwards > 0 for one in found[0])
    assert all(one.cost.rm_forwards == one.cost.rm_tokens == 0 for one in found[1])
    assert [one.cost.lm_tokens for one in found[0]] == [one.cost.lm_tokens for one in found[1]]


def test_other_policies_and_whole_models_are_refused(tmp_path):
    base, other = save_tiny(tmp_path / "base"), save_tiny(tmp_path / "other", seed=3)
    head = save_head(tmp_path / "head", base)
    with pytest.raises(MismatchError, match="is another model"):
        PolicyStateScorer(load_policy(other, device="cpu"), str(other), head)
    whole = save_head(tmp_path / "whole", base, own_states=False)
    with pytest.raises(CheckpointError, match="or do not share"):
        sharing_scorer(load_policy(base, device="cpu"), str(base), whole)
