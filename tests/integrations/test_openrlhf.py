"""OpenRLHF's form of a reward function, called with its published signature."""

import importlib.util

import numpy as np
import pytest
import torch

from rewardsteer.errors import DataError
from rewardsteer.integrations.openrlhf import RewardFunction
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.text_scorer import TextScorer

PROMPTS = ["1+1", "2+2", "3+3"]
RESPONSES = [" = 2", " is four, of course", " 6"]


def written(prompt, response):
    """As the policy read and wrote it, decoded with its special tokens."""
    return f"Q: {prompt}\nA:{response}"


def test_the_file_that_openrlhf_loads(reward_folder, tmp_path):
    file = tmp_path / "reward_func.py"
    file.write_text(
        "from rewardsteer.integrations.openrlhf import RewardFunction\n"
        f"reward_func = RewardFunction.load({str(reward_folder)!r}, device='cpu', batch_size=2)\n"
    )
    spec = importlib.util.spec_from_file_location("reward_func", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    queries = [written(p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    queries[0] = "<pad><pad>" + queries[0] + "<eos><pad>"
    found = module.reward_func(queries, [written(p, "") for p in PROMPTS], ["2", "4", "6"])
    expected = load_scorer(reward_folder, device="cpu").score(
        PROMPTS, [one[1:] for one in RESPONSES]
    )
    assert isinstance(found["rewards"], torch.Tensor)
    np.testing.assert_allclose(found["rewards"].numpy(), expected, atol=1e-5)
    assert found["rewards"].dtype == torch.float32
    assert torch.equal(found["scores"], found["rewards"])
    assert torch.equal(found["extra_logs"]["reward_model"], found["rewards"])


class Length(TextScorer):
    def score(self, prompts, completions, *, batch_size=16, closed=True):
        return np.array([len(c) - 10 * len(p) for p, c in zip(prompts, completions, strict=True)])


def test_models_that_read_a_prompt_and_its_completion():
    reward_func = RewardFunction(Length())
    found = reward_func(queries=["ab cde"], prompts=["ab"], labels=[""], extra=1)
    assert found["rewards"].tolist() == [4 - 20]
    with pytest.raises(DataError, match="begin with their prompts"):
        reward_func(["ab cde"], ["xx"], [""])
    with pytest.raises(DataError, match="Query 1 is empty"):
        reward_func([""], [""], [""])
