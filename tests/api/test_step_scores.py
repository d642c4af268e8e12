"""Values of steps through the public `RewardModel`; searches by our own process reward model."""

import numpy as np
import pytest
import torch

from rewardsteer import RewardModel, Steerer, train
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel as Model
from tests.fakes import character_tokenizer
from tests.process_models import plain_qwen, save_qwen

PROMPTS, STEPS = ["2+3=", "1+1="], [["2+3 is 5", "so 5"], ["2"]]


@pytest.fixture(scope="module")
def process(folders, tmp_path_factory):
    """A folder of a process reward model of our own."""
    place = tmp_path_factory.mktemp("process") / "model"
    torch.manual_seed(5)
    card = CheckpointCard(head=HeadConfig(), objective="process", reading="step_logit")
    model = Model.from_base(folders / "base", HeadConfig())
    torch.nn.init.normal_(model.carrier.score.weight, std=0.3)
    model.save_pretrained(place, character_tokenizer(), card)
    return place


@pytest.fixture(params=["bt", "farma", "process"])
def rm(request, folders, process):
    return RewardModel.from_pretrained(
        process if request.param == "process" else folders / request.param
    )


def test_one_solution_is_an_array_and_several_are_a_list(rm):
    one = rm.step_scores(PROMPTS[0], STEPS[0])
    several = rm.step_scores(PROMPTS, STEPS)
    assert one.shape == (2,)
    assert [len(values) for values in several] == [2, 1]
    np.testing.assert_allclose(one, several[0], atol=1e-5)
    np.testing.assert_allclose(rm.step_scores(PROMPTS[:1], STEPS[:1])[0], one, atol=1e-5)


def test_a_conversation_is_a_prompt(rm):
    talk = [{"role": "user", "content": PROMPTS[0]}]
    found = rm.step_scores(talk, STEPS[0])
    assert found.shape == (2,)
    np.testing.assert_allclose(found, rm.step_scores([talk], STEPS[:1])[0], atol=1e-5)


@pytest.mark.parametrize(("name", "expected"), [
    ("min", np.min), ("last", lambda values: values[-1]), ("product", np.prod), ("mean", np.mean),
])
def test_aggregate_gives_one_number(rm, name, expected):
    values = rm.step_scores(PROMPTS, STEPS)
    one = rm.step_scores(PROMPTS[0], STEPS[0], aggregate=name)
    assert isinstance(one, float)
    assert one == pytest.approx(expected(values[0]), abs=1e-5)
    np.testing.assert_allclose(
        rm.step_scores(PROMPTS, STEPS, aggregate=name), [expected(own) for own in values],
        atol=1e-5,
    )


@pytest.mark.parametrize(("prompts", "steps", "message"), [
    (PROMPTS[0], "2+3 is 5", "steps of a solution as a list of texts, got str"),
    (PROMPTS, STEPS[0], "steps of solution 1 as a list of texts; for several solutions"),
    (PROMPTS[0], STEPS, "steps of solution 1 as a list of texts"),
    (PROMPTS, STEPS[:1], "one list of steps per prompt, got 2 prompts and 1"),
    (3, STEPS, "got int"),
])
def test_other_forms_are_refused(rm, prompts, steps, message):
    with pytest.raises(DataError, match=message):
        rm.step_scores(prompts, steps)


def test_an_unknown_aggregation_is_refused(rm):
    with pytest.raises(ConfigError, match="Unknown aggregation 'median'"):
        rm.step_scores(PROMPTS[0], STEPS[0], aggregate="median")


def test_a_public_model_is_recognised_and_takes_options(tmp_path):
    folder = save_qwen(tmp_path / "qwen")
    rm = RewardModel.from_pretrained(folder, aggregate="last", dtype="float32")
    expected = plain_qwen(folder, PROMPTS[0], STEPS[0])
    np.testing.assert_allclose(rm.step_scores(PROMPTS[0], STEPS[0]), expected, atol=1e-5)
    assert rm.score(PROMPTS[0], "\n\n".join(STEPS[0])) == pytest.approx(expected[-1], abs=1e-5)


@pytest.mark.parametrize("method", ["best_of_n", "beam", "dvts", "particle"])
def test_searches_go_by_it_and_report_its_reward(folders, process, method):
    rm = RewardModel.from_pretrained(process)
    settings = {"n": 4} if method in ("best_of_n", "particle") else {"beam": 2, "branches": 2}
    steerer = Steerer(
        folders / "policy", rm, method=method, step_separator=" ", step_tokens=6, max_steps=3,
        **settings,
    )
    answers = steerer.generate(PROMPTS, max_new_tokens=16, temperature=1.0, seed=3)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.error is None
        ids = rm.scorer.encode([prompt], [""], closed=False)[0]
        closed = rm.scorer.close_response(answer.token_ids, answer.stop_token)
        # A search that ran out of steps has judged its answer as it stood.
        found = [rm.scorer.score_ids(ids, [one])[0] for one in (closed, answer.token_ids)]
        kept = found[:1] if answer.finish_reason == "stop" else found
        assert any(answer.reward == pytest.approx(one, abs=1e-4) for one in kept)


def test_training_on_steps_in_one_call(folders, tmp_path):
    rows = [
        {"prompt": f"{i}+1=", "completions": [f"{i} is yes", "no"], "labels": [True, False]}
        for i in range(8)
    ]
    rm = train(
        "process", folders / "base", rows, output_dir=tmp_path / "run",
        optimiser={"max_steps": 2, "precision": "fp32", "gradient_checkpointing": False},
        data={"test_fraction": 0.3}, log={"progress": False, "save_steps": 0},
    )
    assert len(rm.step_scores("1+1=", ["1 is yes", "no"])) == 2
