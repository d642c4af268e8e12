"""`rewardsteer generate --engine vllm`: the records of the transformers engine."""

from types import SimpleNamespace

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer.decoding.config import DecodingConfig  # noqa: E402
from rewardsteer.decoding.engines.registry import ABILITIES, check_abilities  # noqa: E402
from rewardsteer.decoding.engines.vllm_checks import check_supported  # noqa: E402
from rewardsteer.decoding.engines.vllm_engine import VllmEngine  # noqa: E402
from rewardsteer.decoding.generate import build_method, generate_by  # noqa: E402
from rewardsteer.decoding.methods import METHODS  # noqa: E402
from rewardsteer.errors import ConfigError  # noqa: E402
from rewardsteer.models.checkpoint import load_tokenizer  # noqa: E402
from rewardsteer.models.kinds import load_scorer  # noqa: E402
from tests.cli.test_generate_command import read, refused, run  # noqa: E402
from tests.vllm.models import REWARDS, make_requests, save_models, write_prompts  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = save_models(tmp_path_factory.mktemp("models"))
    write_prompts(root / "prompts.jsonl", make_requests(9, 30))
    return root


def generate(root, output, method, *more):
    reward = () if method == "none" else ("--reward-model", root / REWARD[method])
    return run(
        "generate", "--model", root / "policy", *reward, "--method", method, "--prompts",
        root / "prompts.jsonl", "--output", output, "--max-new-tokens", 8, "--batch-size", 4,
        "--dtype", "float32", *more,
    )


REWARD = {"best_of_n": "args", "cd": "pargs"} | {name: name for name in REWARDS}
VLLM = (
    "--engine", "vllm", "--vllm-option", "enforce_eager=true", "--vllm-option",
    "distributed_executor_backend=uni", "--vllm-option", "num_gpu_blocks_override=64",
)


@pytest.mark.parametrize("method", ["none", "farma", "genarm"])
def test_same_records_as_the_transformers_engine(root, tmp_path, method):
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    options = ("--greedy", "--top-k", 4) + (() if method == "none" else ("--weight", 1.5))
    assert generate(root, ours, method, *options).exit_code == 0
    result = generate(root, theirs, method, *options, *VLLM)
    assert result.exit_code == 0, result.output
    for one, other in zip(read(ours), read(theirs), strict=True):
        dropped = {"cost": {"seconds"}}
        assert one.model_dump(exclude=dropped) == other.model_dump(exclude=dropped)
        assert other.cost.seconds > 0
    refused(generate(root, theirs, method, *options, "--resume"), "engine")


@pytest.mark.parametrize("more", [
    ("--repetition-penalty", 1.5, "--set", "min_tokens=6"),
    ("--set", "logit_bias.7=2.5", "--set", "presence_penalty=0.8", "--set",
     "frequency_penalty=0.3"),
    ("--set", "stop_token_ids=[4,5,6,7,8,9,10]", "--set", "ignore_eos=true"),
    ("--stop", "a", "--stop", "5", "--stop", "e", "--stop", "T"),
])
def test_settings_mean_the_same(root, tmp_path, more):
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    assert generate(root, ours, "none", "--greedy", *more).exit_code == 0
    result = generate(root, theirs, "none", "--greedy", *more, *VLLM)
    assert result.exit_code == 0, result.output
    plain = generate(root, tmp_path / "plain.jsonl", "none", "--greedy")
    assert plain.exit_code == 0
    changed = 0
    for one, other, before in zip(
        read(ours), read(theirs), read(tmp_path / "plain.jsonl"), strict=True
    ):
        assert one.model_dump(exclude={"cost"}) == other.model_dump(exclude={"cost"})
        changed += one.completion != before.completion
    assert changed > 0


def test_best_of_n(root, tmp_path):
    output, single = tmp_path / "y.jsonl", tmp_path / "one.jsonl"
    assert generate(root, output, "best_of_n", "--n", 3, *VLLM).exit_code == 0
    rows, scorer = read(output), load_scorer(root / "args")
    prompts = [one.prompt_ids for one in make_requests(9, 30)]
    responses = [scorer.close_response(row.token_ids) for row in rows]
    rewards = scorer.score_ids(prompts, responses)
    assert [row.reward for row in rows] == pytest.approx(list(rewards), abs=1e-4)
    assert all(row.cost.rm_calls == 3 for row in rows)
    # The first of the three draws again, in other batches.
    assert generate(root, single, "best_of_n", "--n", 1, *VLLM, "--batch-size", 9).exit_code == 0
    pairs = list(zip(rows, read(single), strict=True))
    gains = [row.reward - first.reward for row, first in pairs]
    assert min(gains) > -1e-4
    assert max(gains) > 0.01
    same = [row.token_ids == first.token_ids for row, first in pairs]
    assert same == [gain < 1e-4 for gain in gains]
    assert any(same)


DRAFTS = (
    "speculative_config={method: ngram, num_speculative_tokens: 2, prompt_lookup_max: 2}"
)


@pytest.mark.parametrize(
    ("method", "more", "parts"),
    [
        ("farma", ("--target-kl", 0.1), ("vLLM engine", "KL")),
        ("farma", ("--reward-model", "genarm"), ("several reward models",)),
        ("args", (), ("vocabulary head", "farma or genarm", "engine transformers or openai")),
        ("farma", ("--reward-dtype", "bfloat16"), ("--reward-device",)),
        ("farma", ("--vllm-option", DRAFTS), ("only in vLLM's V2 runner",)),
        ("none", ("--max-new-tokens", 600), ("'r0'", "512")),
        ("none", ("--vllm-option", "eager"), ("name=value", "'eager'")),
        ("none", ("--vllm-option", "no_such_thing=1"), ("vLLM refuses", "no_such_thing")),
        ("none", ("--engine", "vlm"), ("Unknown engine 'vlm'",)),
    ],
)
def test_refused(root, tmp_path, method, more, parts):
    more = [root / item if item == "genarm" else item for item in more]
    refused(generate(root, tmp_path / "y.jsonl", method, *VLLM, *more), *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["args", "pargs", "cd"])
def test_candidate_methods_are_refused(name):
    config = DecodingConfig.model_construct(method=name)
    with pytest.raises(ConfigError, match=f"method '{name}'.*engine transformers \\(--engine\\)"):
        check_supported(SimpleNamespace(scorer=None), config)


def test_what_vllm_cannot_do_is_told_before_it_starts(root):
    """Where the policy is unsure is not known outside of it."""
    scorer = load_scorer(root / "args")
    method = build_method(DecodingConfig(method="cards", reward_target=1.0), scorer)
    with pytest.raises(ConfigError, match=r"stops where the policy is unsure.*transformers"):
        check_abilities(VllmEngine, method)


def test_every_other_method_runs():
    can = ABILITIES["vllm"]
    lacking = [name for name in METHODS.names() if not METHODS.get(name).abilities <= can]
    assert lacking == ["args", "cards", "cd", "pargs"]


def test_a_failing_step_ends_the_run(root):
    """A run whose vLLM fails is told, and does not wait for ever."""
    tokenizer, config = load_tokenizer(root / "policy"), DecodingConfig(max_new_tokens=8)

    def step():
        raise RuntimeError("the engine is gone")

    engine = VllmEngine.open(str(root / "policy"), tokenizer, config)
    engine.llm = SimpleNamespace(llm_engine=SimpleNamespace(
        step=step, add_request=lambda *request: None, abort_request=lambda names: None
    ))
    with pytest.raises(RuntimeError, match="the engine is gone"):
        list(generate_by(engine, make_requests(2, 10), build_method(config), config))
