"""Methods compared on vLLM: its figures are those of the transformers engine."""

import json

import pytest
import yaml
from typer.testing import CliRunner

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer import RewardModel, Steerer  # noqa: E402
from rewardsteer.cli.main import app  # noqa: E402
from rewardsteer.data.template import Template  # noqa: E402
from rewardsteer.evaluation.record_files import read_records  # noqa: E402
from tests.vllm.models import make_requests, save_models, write_prompts  # noqa: E402

REQUESTS = make_requests(4, 30)
OPTIONS = {"enforce_eager": True, "distributed_executor_backend": "uni",
           "num_gpu_blocks_override": 64}
SHORT = {"mode": "greedy", "max_new_tokens": 8, "batch_size": 3, "top_k": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


def compared(root, out, rows, *options):
    methods = out.parent / "methods.yaml"
    methods.write_text(yaml.safe_dump(rows))
    return CliRunner().invoke(app, [
        "evaluate", "generation", "--model", str(root / "policy"), "--prompts",
        str(write_prompts(out.parent / "prompts.jsonl", REQUESTS)), "--methods", str(methods),
        "--judge", str(root / "args"), "--template", "text", "--out", str(out), *options,
    ])


def on_vllm():
    return ["--engine", "vllm", "--dtype", "float32", *(
        word for name, value in OPTIONS.items() for word in ("--vllm-option", f"{name}={value}")
    )]


def test_figures_are_those_of_the_transformers_engine(root, tmp_path):
    """Each reward model that guides starts vLLM anew, and a second policy beside it."""
    rows = {
        "none": {"method": "none", **SHORT},
        "farma": {"method": "farma", "weight": 1.5, "reward_model": str(root / "farma"), **SHORT},
        "gsi": {"method": "gsi", "n": 1, "weight": 4.0, "step_tokens": 4, "step_separator": "",
                "reward_model": str(root / "args"), "draft_model": str(root / "base"), **SHORT},
    }
    places = {"vllm": on_vllm(), "transformers": []}
    for name, options in places.items():
        done = compared(root, tmp_path / name, rows, *options)
        assert done.exit_code == 0, done.output
    for label in rows:
        found, right = (read_records(tmp_path / name / f"{label}.jsonl") for name in places)
        for key, one in right.items():
            mine = found[key]
            assert mine.generation.token_ids == one.generation.token_ids
            assert mine.metrics == pytest.approx(one.metrics, abs=1e-3)
            assert mine.generation.cost.lm_calls == one.generation.cost.lm_calls
            assert mine.extra["equivalent_tokens"] > 0
    settings = json.loads((tmp_path / "vllm" / "run.json").read_text())
    assert settings["engine"] == "vllm"
    # All was generated: only what was not judged yet is, for which vLLM starts again.
    judged = tmp_path / "vllm" / "farma.jsonl"
    lines = judged.read_text().splitlines(keepends=True)
    judged.write_text(lines[0])
    done = compared(root, tmp_path / "vllm", rows, *on_vllm(), "--resume")
    assert done.exit_code == 0, done.output
    again = [json.loads(line) for line in judged.open()]
    assert [one["metrics"] for one in again] == [
        pytest.approx(json.loads(line)["metrics"], abs=1e-4) for line in lines
    ]
    refused = compared(root, tmp_path / "vllm", rows, "--resume")
    assert "other settings of dtype, engine" in " ".join(refused.output.split())


def test_what_vllm_cannot_do_is_refused_before_it_starts(root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "rewardsteer.decoding.engines.vllm_engine.start", lambda *_, **__: pytest.fail("it started")
    )
    scalar, guide = str(root / "args"), str(root / "farma")
    for row, told in (
        ({"method": "args", "reward_model": scalar}, "names the likeliest next tokens by their"),
        ({"method": "farma", "reward_model": guide, "max_kl": 1.0}, "a schedule or KL"),
    ):
        done = compared(root, tmp_path / "out", {"none": {"method": "none"}, "a": row}, *on_vllm())
        assert done.exit_code == 2
        assert told in " ".join(done.output.split())
        assert not (tmp_path / "out").exists()


def test_in_python_at_equal_budgets(root, tmp_path):
    judge = RewardModel.from_pretrained(root / "args")
    steerer = Steerer(
        root / "policy", root / "farma", engine="vllm", dtype="float32", engine_options=OPTIONS,
        template=Template(kind="text"), max_new_tokens=4, weight=1.5,
    )
    found = steerer.compare(
        [one.prompt for one in REQUESTS], ["none", "farma"], judge=judge, budget="tokens",
        budget_per_prompt=200,
    )
    assert found["farma"]["draws"] > 1 == found["none"]["draws"]
    assert found["farma"]["surprise"] > 0
