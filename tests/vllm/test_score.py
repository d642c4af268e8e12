"""Our scalar checkpoints in vLLM's pooling runner give the rewards that transformers gives."""

import json

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer.models.scorer import Scorer  # noqa: E402
from tests.cli.test_generate_command import refused, run  # noqa: E402
from tests.vllm.models import make_requests, save_models  # noqa: E402
from tests.vllm.test_generate import VLLM  # noqa: E402

COMPLETIONS = ["15", "b", "", "me and you", "7"] * 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = save_models(tmp_path_factory.mktemp("models"))
    prompts = [one.prompt for one in make_requests(30)]
    rows = [{"prompt": p, "completion": c} for p, c in zip(prompts, COMPLETIONS, strict=True)]
    rows[4]["completion"] = "x" * 600
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def score(root, output, *more, reward_model="args"):
    return run(
        "score", "--reward-model", root / reward_model, "--input", root / "rows.jsonl", "--output",
        output, "--dtype", "float32", *more,
    )


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rewards(root, tmp_path):
    assert score(root, tmp_path / "ours.jsonl").exit_code == 0
    result = score(root, tmp_path / "theirs.jsonl", *VLLM)
    assert result.exit_code == 0, result.output
    ours, theirs = read(tmp_path / "ours.jsonl"), read(tmp_path / "theirs.jsonl")
    assert ours[4].pop("reward") is theirs[4].pop("reward") is None
    for one, other in zip(ours, theirs, strict=True):
        assert other.pop("reward", None) == pytest.approx(one.pop("reward", None), abs=1e-4)
        assert one == other


def test_stock_vllm_gives_them(root):
    """Without any code of ours: text in, raw value out."""
    requests = make_requests(6)
    llm = vllm.LLM(
        str(root / "args"), runner="pooling", dtype="float32", enforce_eager=True,
        distributed_executor_backend="uni",
    )
    scorer = Scorer.load(root / "args")
    outputs = llm.classify(
        [request.prompt for request in requests],
        pooling_params=vllm.PoolingParams(use_activation=False), use_tqdm=False,
    )
    expected = scorer.score_ids([[]] * 6, [request.prompt_ids for request in requests])
    found = [output.outputs.probs[0] for output in outputs]
    assert found == pytest.approx(list(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("reward_model", "more", "parts"),
    [
        ("farma", (), ("scalar heads", "vocabulary head")),
        ("args", ("--tokens",), ("--no-tokens",)),
        ("absent", (), ("there is none",)),
    ],
)
def test_refused(root, tmp_path, reward_model, more, parts):
    result = score(root, tmp_path / "y.jsonl", *VLLM, *more, reward_model=reward_model)
    refused(result, *parts)
    assert list(tmp_path.iterdir()) == []
