import pytest

from rewardsteer.data.template import Template
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import save_tiny


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("policy") / "model")


@pytest.fixture(scope="session", params=["scalar", "vocabulary"])
def reward_folder(request, policy_folder, tmp_path_factory):
    head = HeadConfig(kind=request.param)
    template = Template(prompt="Q: {prompt}\nA:", response=" {response}")
    folder = tmp_path_factory.mktemp(request.param) / "model"
    RewardModel.from_base(policy_folder, head).save_pretrained(
        folder, load_tokenizer(policy_folder),
        CheckpointCard(head=head, template=template.model_dump(mode="json")),
    )
    return folder
