import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.goals.files import save_goals
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.checkpoint import CheckpointCard, fingerprint
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import character_tokenizer, save_tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """See `make_folders`."""
    return make_folders(tmp_path_factory.mktemp("api"))


def make_folders(root):
    """A policy, and reward models of three kinds, as folders; the first has a goal state."""
    save_tiny(root / "policy", seed=0, padding_side="left")
    base = save_tiny(root / "base", seed=7)
    kinds = {
        "bt": ("scalar", "bradley_terry"), "farma": ("vocabulary", "bradley_terry+max_constraint"),
        "pargs": ("scalar", "partial"),
    }
    for name, (head, objective) in kinds.items():
        torch.manual_seed(3)
        config = HeadConfig(kind=head)
        card = CheckpointCard(
            head=config, objective=objective,
            template=Template(kind="text", append_eos=False).model_dump(mode="json"),
        )
        RewardModel.from_base(base, config).save_pretrained(
            root / name, character_tokenizer(), card
        )
    vectors = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    goal = GoalState(
        "preferred", vectors,
        Provenance(kind="mean", model_fingerprint=fingerprint(root / "bt")),
    )
    save_goals(root / "bt", {"preferred": goal})
    return root
