"""The inspector of one completion, from Python and within a notebook."""

import numpy as np
import pytest

from rewardsteer import RewardModel, Steerer
from rewardsteer.errors import ConfigError


@pytest.fixture(scope="module")
def model(folders):
    return RewardModel.from_pretrained(folders / "bt", device="cpu")


def test_rewards_are_those_of_token_scores(model):
    found = model.inspect("1+1=", "2+0")
    scores = model.token_scores("1+1=", "2+0")
    np.testing.assert_allclose(found.rewards, scores.rewards, atol=1e-9)
    assert "".join(found.tokens) == "2+0"
    assert len(str(found).splitlines()) == 3


def test_a_notebook_shows_a_page_in_a_frame(model, tmp_path):
    found = model.inspect("1+1=", "<b>2</b>")
    frame = found._repr_html_()
    assert frame.startswith("<iframe sandbox")
    assert "<b>" not in frame, "model output is escaped, and so is the page in the attribute"
    found.save(tmp_path / "page.html")
    assert "Content-Security-Policy" in (tmp_path / "page.html").read_text()


def test_a_goal_adds_similarities(model):
    found = model.inspect("1+1=", "2", goal=model.goal_state())
    expected = model.token_scores("1+1=", "2", goal=model.goal_state()).similarities
    assert [token.similarity for token in found.record.tokens] == pytest.approx(expected)


def test_a_steerer_adds_what_the_policy_preferred(folders, model):
    steerer = Steerer(folders / "policy", model, method="args", device="cpu", top_k=3)
    found = steerer.inspect("1+1=", "2+0")
    np.testing.assert_allclose(found.rewards, model.inspect("1+1=", "2+0").rewards, atol=1e-5)
    assert all(token.policy and token.guided for token in found.record.tokens)
    written = steerer.inspect("1+1=")
    assert written.record.tokens


def test_a_steerer_without_a_reward_model_has_nothing_to_inspect(folders):
    with pytest.raises(ConfigError, match=r"needs the engine 'transformers' and a reward model"):
        Steerer(folders / "policy", device="cpu").inspect("1+1=", "2")
