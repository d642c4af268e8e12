"""Losses, gradients, rewards and whole trainings on a CUDA device."""

import pytest
import torch

from rewardsteer.data.collate import PairCollator
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.packing.choose import choose_packing, packed_attention
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training.config import TermConfig, TrainConfig
from rewardsteer.training.run import train
from tests.models.test_packing import build
from tests.objectives.test_objectives import rows
from tests.training.engines import make_world, settings
from tests.training.test_operators import MASK, TERMS


def step(head, name, costs, device):
    """Loss and gradients of one batch."""
    from rewardsteer.data.collate import to_batch

    torch.manual_seed(0)
    model = build("llama", head, torch.float32, "sdpa").to(device)
    objective = build_objective([TermConfig(name=name)])
    fields = PairCollator(
        0, paired=objective.rows == "pairs", prefixes=objective.prefixes, packing=costs
    )(rows(seed=3, count=4))
    fields = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in fields.items()
    }
    if fields["packing"] is not None:
        fields["packing"] = {key: value.to(device) for key, value in fields["packing"].items()}
    with packed_attention(model, costs):
        loss = model(to_batch(fields), objective).loss
    loss.backward()
    return loss.item(), {
        key: one.grad.cpu() for key, one in model.named_parameters() if one.grad is not None
    }


@pytest.mark.parametrize("costs", [None, MASK], ids=["padded", "masked"])
@pytest.mark.parametrize(
    ("head", "name"), [(head, name) for head, names in TERMS.items() for name in names]
)
def test_losses_and_gradients_are_those_of_the_cpu(head, name, costs):
    loss, gradients = step(head, name, costs, "cuda")
    expected, plain = step(head, name, None, "cpu")
    assert loss == pytest.approx(expected, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(gradients, plain, rtol=1e-3, atol=1e-4)


def test_segments_are_not_chosen():
    model = build("llama", "scalar", torch.float32, "sdpa").cuda()
    assert choose_packing(model, 9).per_kernel_call is None


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("objective", ["bradley_terry", "bradley_terry | max_constraint"])
@pytest.mark.parametrize("how", [{}, {"lora": {"rank": 2}}], ids=["whole", "lora"])
def test_a_run_trains_and_its_model_scores(tmp_path, objective, precision, how):
    world = make_world(tmp_path)
    config = settings(world, objective, 1, optimiser={"precision": precision}, **how)
    folder = train(TrainConfig.model_validate(config), tmp_path / "run")
    prompts, answers = ["1+1="] * 3, ["2", "3", "12"]
    found = load_scorer(folder, device="cuda").score(prompts, answers)
    expected = load_scorer(folder, device="cpu").score(prompts, answers)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
