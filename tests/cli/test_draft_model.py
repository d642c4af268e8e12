"""`rewardsteer generate --draft-model`: methods with a second policy, and what is refused."""

import pytest

from tests.cli.test_generate_command import generate, read, save_reward_model
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("drafts")
    base = save_tiny(root / "policy", seed=1)
    save_tiny(root / "small", "gpt2", seed=2)
    strange = save_tiny(root / "strange", seed=3)
    character_tokenizer(CHARACTERS[::-1]).save_pretrained(strange)
    save_reward_model(base, root / "plain", "scalar")
    (root / "prompts.jsonl").write_text('{"id": "p0", "prompt": "a"}\n')
    return root


def answered(root, output, method, *more):
    return generate(root, output, *more, reward_model="plain", method=method)


@pytest.mark.parametrize(("method", "more"), [
    ("rsd", ("--set", "accept_reward=0")),
    ("gsi", ("--n", 2, "--weight", 3, "--set", "accept_reward=0")),
])
def test_it_drafts(root, tmp_path, method, more):
    output = tmp_path / "y.jsonl"
    result = answered(
        root, output, method, "--draft-model", root / "small", "--step-tokens", 2, *more
    )
    assert result.exit_code == 0, result.output
    [row] = read(output)
    assert row.method == method
    assert row.reward is not None
    # Of every step, all that both policies proposed.
    assert row.cost.lm_calls >= row.cost.new_tokens * (2 if method == "gsi" else 1)


@pytest.mark.parametrize("method", ["rsd", "gsi"])
def test_other_tokens_are_refused_before_a_policy_loads(root, tmp_path, method, monkeypatch):
    monkeypatch.setattr(
        "rewardsteer.decoding.engines.transformers.engine.load_policy",
        lambda *_, **__: pytest.fail("a policy was loaded"),
    )
    result = answered(root, tmp_path / "y.jsonl", method, "--draft-model", root / "strange")
    assert result.exit_code != 0
    assert "must have one vocabulary" in " ".join(result.output.split())
    assert not (tmp_path / "y.jsonl").exists()


@pytest.mark.parametrize(("method", "more", "said"), [
    ("gsi", (), "'gsi' needs a second policy that drafts (draft_model, --draft-model)"),
    ("best_of_n", ("--draft-model", "small"), "has no use for a second policy that drafts "
                                               "(draft_model, --draft-model); leave it out, or use "
                                               "gsi or rsd"),
    ("gsi", ("--draft-model", "small", "--set", "resample_below=0.1"), "resample_below"),
    ("gsi", ("--draft-model", "small", "--greedy"), "greedy decoding gives the same one"),
])
def test_what_does_not_fit_is_said(root, tmp_path, method, more, said):
    options = [root / "small" if one == "small" else one for one in more]
    result = answered(root, tmp_path / "y.jsonl", method, *options)
    assert result.exit_code != 0
    assert said in " ".join(result.output.split())
