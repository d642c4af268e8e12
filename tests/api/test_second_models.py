"""A `Steerer` with a second policy that drafts, and with a reward model for its gate."""

import pytest

from rewardsteer import Steerer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.kinds import load_scorer
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny

SHORT = {"max_new_tokens": 6, "seed": 2}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("second") / "small", "gpt2", seed=2)


def known(folders, config, reward_model, **options):
    policy, tokenizer = load_policy(folders / "policy"), load_tokenizer(folders / "policy")
    method = build_method(config, load_scorer(folders / reward_model), **options)
    return [one.token_ids for one in generate(policy, tokenizer, ["2+2=", "a"], method, config)]


@pytest.mark.parametrize(("method", "options"), [
    ("rsd", {"accept_reward": 0.0}), ("gsi", {"n": 2, "weight": 3.0, "accept_reward": 0.0}),
])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_second_policy_drafts(folders, small, method, options, loaded):
    settings = {"step_tokens": 2, **options, **SHORT}
    steerer = Steerer(
        folders / "policy", folders / "bt", method=method,
        draft_model=load_policy(small) if loaded else small, **settings,
    )
    found = steerer.generate(["2+2=", "a"])
    engine = TransformersEngine(load_policy(small), load_tokenizer(folders / "policy"))
    config = DecodingConfig(method=method, **settings)
    assert [one.token_ids for one in found] == known(folders, config, "bt", drafter=engine)
    # A call by another method leaves it aside.
    assert steerer.generate("a", method="best_of_n", n=2)[0].error is None


def test_a_reward_model_decides_for_the_gate(folders):
    settings = {"gate": "kl", "gate_threshold": 1e-4, "weight": 3.0, "top_k": 5, **SHORT}
    steerer = Steerer(
        folders / "policy", folders / "pargs", gate_model=folders / "farma", **settings
    )
    found = steerer.generate(["2+2=", "a"])
    config = DecodingConfig(method="pargs", **settings)
    assert [one.token_ids for one in found] == known(
        folders, config, "pargs", scout=load_scorer(folders / "farma")
    )
    alone = Steerer(folders / "policy", folders / "pargs", **settings).generate("2+2=")[0]
    # The scout reads every step besides.
    assert found[0].cost.rm_forwards > alone.cost.rm_forwards
    assert steerer.generate("a", gate="always", gate_threshold=None)[0].error is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"method": "rsd"}, "'rsd' needs a second policy that drafts"),
    ({"method": "args", "draft_model": "small"}, "'args' has no use for a second policy"),
    ({"method": "rsd", "draft_model": object(), "engine": "vllm"},
     "loaded policy that drafts is for the engine 'transformers'"),
    ({"method": "args", "gate_model": "farma"}, "serves the gate 'kl' alone"),
    ({"method": "pargs", "gate": "kl", "gate_threshold": 0.1, "gate_model": "bt"}, "vocabulary"),
])
def test_what_is_refused_before_the_policy_loads(folders, small, changes, message, monkeypatch):
    monkeypatch.setattr(
        "rewardsteer.decoding.policy.load_policy", lambda *_, **__: pytest.fail("it was loaded")
    )
    places = {"small": small, "farma": folders / "farma", "bt": folders / "bt"}
    changes = {key: places.get(value, value) for key, value in changes.items()}
    reward_model = folders / ("pargs" if changes["method"] == "pargs" else "bt")
    with pytest.raises((ConfigError, MismatchError), match=message):
        Steerer(folders / "policy", reward_model, **changes)


def test_other_tokens_are_refused(folders, tmp_path):
    strange = save_tiny(tmp_path / "strange", seed=3)
    character_tokenizer(CHARACTERS[::-1]).save_pretrained(strange)
    with pytest.raises(MismatchError, match="must have one vocabulary"):
        Steerer(folders / "policy", folders / "bt", method="rsd", draft_model=strange, **SHORT)


def test_methods_are_compared_with_second_models(folders, small, monkeypatch):
    steerer = Steerer(folders / "policy", folders / "bt", method="rsd",
                      draft_model=small, step_tokens=2, accept_reward=0.0, **SHORT)
    found = steerer.compare(["2+2=", "a"], {"rsd": {}, "gsi": {"n": 2}}, judge=folders / "bt")
    assert found["rsd"]["lm_tokens_per_token"] > 0
    plain = Steerer(folders / "policy", folders / "bt", method="best_of_n", n=2, **SHORT)
    own = {"method": "rsd", "draft_model": small, "accept_reward": 0.0, "step_tokens": 2}
    table = plain.compare(["2+2=", "a"], {"a": own}, judge=folders / "bt")
    assert table["a"]["reward"] == found["rsd"]["reward"]
    monkeypatch.setattr(
        "rewardsteer.api.steerer.load_policy_of", lambda *_: pytest.fail("it was loaded")
    )
    with pytest.raises(ConfigError, match="'rsd' needs a second policy"):
        plain.compare(["a"], ["rsd"], judge=folders / "bt")
    with pytest.raises(ConfigError, match="'best_of_n' has no use for a second policy"):
        plain.compare(["a"], {"best_of_n": {"draft_model": small}}, judge=folders / "bt")
    with pytest.raises(ConfigError, match="serves the gate 'kl' alone"):
        plain.compare(
            ["a"], {"args": {"gate_model": folders / "farma"}}, judge=folders / "bt"
        )
