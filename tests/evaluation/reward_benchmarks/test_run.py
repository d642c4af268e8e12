"""Benchmarks from names to tables: local files, the hub's cache, recorded scores, resuming."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import rewardsteer
from rewardsteer.cli.main import app
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.reward_benchmarks.loading import load_benchmark
from rewardsteer.evaluation.reward_benchmarks.run import (
    evaluate_benchmark,
    measured_together,
    recorded_scores,
    score_items,
)
from rewardsteer.models.limits import check_length
from rewardsteer.models.text_scorer import TextScorer
from tests.api.conftest import make_folders

ROWS = [
    {"id": str(number), "prompt": f"{number} + 1 =", "chosen": [str(number + 1)],
     "rejected": ["no", "7 + 7", "12"], "subset": subset}
    for number, subset in enumerate(["Math", "Math", "Focus"])
] + [
    {"id": f"{kind}:0", "prompt": "1 + 1 =", "chosen": right, "rejected": ["3"], "subset": "Ties"}
    for kind, right in (("ref", ["2"]), ("tied", ["2", "1 + 1"]))
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmarks")
    make_folders(root)
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return root


def test_figures_are_those_of_the_models_own_scores(place):
    model = rewardsteer.RewardModel.from_pretrained(place / "bt")
    table = rewardsteer.evaluate(model, "rewardbench2", path=place / "rows.jsonl")
    points = []
    for row in ROWS[:2]:
        own = model.score(row["prompt"], [*row["chosen"], *row["rejected"]])
        points.append((own[0] == own.max()) / (own == own.max()).sum())
    assert table["Math"]["score"] == pytest.approx(np.mean(points))
    # Two questions have no interval.
    assert {"score", "questions", "random", "length"} == set(table["Math"])
    assert table["Math"]["questions"] == 2
    assert "average" not in table.rows, "three subsets are missing"


def test_a_folder_of_the_hub_gives_its_own_split(place, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    text = (place / "rows.jsonl").read_text()
    (folder / "test-00000-of-00001.jsonl").write_text(text)
    (folder / "raw-00000-of-00001.jsonl").write_text("no JSON\n")
    assert len(load_benchmark("rewardbench2", tmp_path)[1]) == len(ROWS)


def test_a_benchmark_in_several_splits_of_the_hub_is_read_whole(tmp_path, monkeypatch):
    """Qwen/ProcessBench has a split for each subset and none named test."""
    folder = tmp_path / "Qwen" / "ProcessBench"
    folder.mkdir(parents=True)
    names = ("gsm8k", "math", "olympiadbench", "omnimath")
    for name in names:
        row = {"id": f"{name}-0", "problem": "?", "steps": ["1", "2"], "label": -1}
        (folder / f"{name}.json").write_text(json.dumps([row]))
    files = "".join(f"  - split: {name}\n    path: {name}.json\n" for name in names)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
    )
    monkeypatch.chdir(tmp_path)
    assert [item.subset for item in load_benchmark("processbench")[1]] == list(names)


def test_scores_are_kept_and_not_made_again(place, tmp_path):
    model = rewardsteer.RewardModel.from_pretrained(place / "bt")
    benchmark, items = load_benchmark("rewardbench2", place / "rows.jsonl")
    file = tmp_path / "scores.jsonl"
    whole = score_items(model.scorer, benchmark, items, file=file).scores
    lines = file.read_text().splitlines()
    # A kill left two lines and a half.
    file.write_text("\n".join(lines[:2]) + "\n" + lines[2][:10])
    asked = []

    class Counting(TextScorer):
        def score(self, prompts, completions, **options):
            asked.extend(completions)
            return model.scorer.score(prompts, completions, **options)

    again = score_items(Counting(), benchmark, items, file=file).scores
    assert len(asked) == sum(len(one.completions) for one in items[2:])
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert len(file.read_text().splitlines()) == len(items)


class Short(TextScorer):
    """The reward is a text's length, of at most so many characters."""

    def __init__(self, limit):
        self.limit = limit

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        for number, text in enumerate(completions, start=1):
            check_length(number, len(text), self.limit)
        return np.array([float(len(text)) for text in completions])


def test_items_that_cannot_be_scored_are_left_out_and_named(place, tmp_path, caplog):
    benchmark, items = load_benchmark("rewardbench2", place / "rows.jsonl")
    file = tmp_path / "scores.jsonl"
    short = score_items(Short(1), benchmark, [*items[:3], items[3]], file=file)
    assert [one.id for one in short.items] == [items[3].id]
    assert len(short.reasons) == 3
    assert short.reasons[0].startswith(f"The item {items[0].id!r} has 2 tokens")
    assert len(file.read_text().splitlines()) == 1
    with pytest.raises(DataError, match="No item could be scored"):
        score_items(Short(0), benchmark, items)
    longer = evaluate_benchmark(Short(4), "rewardbench2", place / "rows.jsonl")
    assert "Math" not in longer
    assert "4 of 5 items could not be scored" in caplog.text


def test_models_are_compared_on_the_items_that_all_could_score(place):
    class Picky(Short):
        def score(self, prompts, completions, **options):
            if "0 + 1 =" in prompts:
                raise DataError("Row 1 is refused.")
            return super().score(prompts, completions, **options)

    benchmark, items = load_benchmark("rewardbench2", place / "rows.jsonl")
    models = {"one": score_items(Picky(99), benchmark, items),
              "other": score_items(Short(99), benchmark, items)}
    assert [len(one.items) for one in models.values()] == [4, 5]
    (one, _), (other, _) = measured_together(benchmark, models).values()
    assert one.figures == other.figures
    assert one.clusters == other.clusters
    assert one.clusters["Math"] == 1


def test_steps_that_cannot_be_scored(tmp_path):
    class Steps(Short):
        def step_scores(self, prompts, steps, *, batch_size=16):
            return [self.score(own, own) for own in steps]

    rows = [{"id": f"gsm8k-{n}", "problem": "q", "steps": ["a", "b" * n], "label": -1}
            for n in range(1, 9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark, items = load_benchmark("processbench", tmp_path / "rows.jsonl")
    found = score_items(Steps(4), benchmark, items)
    assert [one.id for one in found.items] == [f"gsm8k-{n}" for n in range(1, 5)]
    assert found.scores[3].tolist() == [1, 4]
    assert len(found.reasons) == 4


def test_data_at_fault_shows_before_a_model_loads(place, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    result = CliRunner().invoke(app, [
        "evaluate", "benchmark", f"rewardbench2={tmp_path / 'rows.jsonl'}", "--reward-model",
        str(place / "policy"), "--out", str(tmp_path / "out"),
    ])
    assert result.exit_code == 2
    assert "expected the field(s)" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_recorded_scores_count_alone(place, tmp_path):
    _benchmark, items = load_benchmark("rewardbench2", place / "rows.jsonl")
    file = tmp_path / "theirs.jsonl"
    file.write_text(json.dumps({"id": items[0].id, "scores": [1.0, 0.0, 0.0, 0.0]}) + "\n")
    scored, values = recorded_scores(file, items)
    assert [one.id for one in scored] == [items[0].id]
    assert values[0].tolist() == [1, 0, 0, 0]
    file.write_text(json.dumps({"id": items[0].id, "scores": [1.0]}) + "\n")
    with pytest.raises(DataError, match="expected 4 scores"):
        recorded_scores(file, items)
    file.write_text(json.dumps({"id": "other", "scores": [1.0]}) + "\n")
    with pytest.raises(DataError, match="Expected ids of the benchmark"):
        recorded_scores(file, items)


def test_responses_may_be_messages(place, tmp_path):
    def talks(texts):
        return [[{"role": "assistant", "content": text}] for text in texts]

    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row | {
        name: talks(row[name]) for name in ("chosen", "rejected")
    }) + "\n" for row in ROWS))
    _, items = load_benchmark("rewardbench2", file)
    assert items == load_benchmark("rewardbench2", place / "rows.jsonl")[1]


def test_an_option_that_a_benchmark_does_not_have_is_refused(place):
    with pytest.raises(ConfigError, match=r"rewardbench2 has no option threshold.*none"):
        load_benchmark("rewardbench2", place / "rows.jsonl", threshold=0.5)
    with pytest.raises(ConfigError, match="Unknown benchmark of reward models"):
        load_benchmark("rewardbench3", place / "rows.jsonl")


@pytest.mark.parametrize(("change", "match"), [
    ({"chosen": "one text"}, "expected a list of responses, .* in chosen; got text"),
    ({"chosen": []}, "got none of one kind"),
    ({"prompt": 3}, "expected text or messages as prompt, .* got a number"),
])
def test_rows_at_fault_are_named(tmp_path, change, match):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS[0] | change) + "\n")
    with pytest.raises(DataError, match=f"line 1: .*{match}"):
        load_benchmark("rewardbench2", file)


def test_command(place, tmp_path):
    out = tmp_path / "out"
    given = ["evaluate", "benchmark", f"rewardbench2={place / 'rows.jsonl'}", "--out", str(out)]
    models = ["--reward-model", str(place / "bt"), "--reward-model", str(place / "pargs")]
    result = CliRunner().invoke(app, [*given, *models, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    figures = json.loads((out / "metrics.json").read_text())["rewardbench2"]
    assert set(figures) == {str(place / "bt"), str(place / "pargs")}
    assert "Math" in result.output
    assert "random" in result.output
    assert "no intervals" in result.output
    assert "difference to" in result.output
    differences = json.loads((out / "differences.json").read_text())["rewardbench2"]["Math"]
    expected = figures[str(place / "pargs")]["Math"]["score"]
    expected -= figures[str(place / "bt")]["Math"]["score"]
    assert differences == {str(place / "pargs"): {"difference": pytest.approx(expected)}}
    again = CliRunner().invoke(app, [*given, *models, "--device", "cpu", "--resume"])
    assert again.exit_code == 0, again.output
    assert json.loads((out / "metrics.json").read_text())["rewardbench2"] == figures
    both = CliRunner().invoke(app, [*given, *models, "--device", "cpu", "--resume", "--runs"])
    assert both.exit_code == 0, both.output
    means = json.loads((out / "runs.json").read_text())["rewardbench2"]["Math"]
    scores = [own["Math"]["score"] for own in figures.values()]
    assert means["score"] == pytest.approx(np.mean(scores))
    assert means["score_spread"] == pytest.approx(np.std(scores, ddof=1))


def test_scores_of_the_score_command_give_the_same_figures(place, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments)])

    named = f"rewardbench2={place / 'rows.jsonl'}"
    asked = ("score", "--reward-model", place / "bt", "--device", "cpu", "--benchmark", named)
    result = run(*asked, "--output", tmp_path / "s.jsonl")
    assert result.exit_code == 0, result.output
    by_scores = run("evaluate", "benchmark", named, "--scores", tmp_path / "s.jsonl", "--out",
                    tmp_path / "a")
    by_model = run("evaluate", "benchmark", named, "--reward-model", place / "bt", "--out",
                   tmp_path / "b", "--device", "cpu")
    assert by_scores.exit_code == by_model.exit_code == 0, by_scores.output
    [found], [expected] = (
        json.loads((tmp_path / name / "metrics.json").read_text())["rewardbench2"].values()
        for name in "ab"
    )
    assert found == expected
    again = run(*asked, "--output", tmp_path / "s.jsonl")
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    for extra, words in (
        (["--input", "x.jsonl"], "either --input"), (["--tokens"], "leave out --tokens"),
        (["--output", "x.parquet"], "end x.parquet in .jsonl"),
    ):
        wrong = run(*asked, "--output", tmp_path / "t.jsonl", *extra)
        assert wrong.exit_code == 2
        assert words in wrong.stderr


def test_prompts_of_benchmarks(place, tmp_path):
    def prompts(*arguments):
        result = CliRunner().invoke(
            app, ["data", "prompts", *map(str, arguments), "--out", str(tmp_path / "p.jsonl"),
                  "--overwrite"]
        )
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]

    # A prompt that several rows have is written once, under the id of the first.
    assert prompts("rewardbench2", "--path", place / "rows.jsonl") == [
        {"id": "Math/0", "prompt": "0 + 1 ="}, {"id": "Math/1", "prompt": "1 + 1 ="},
        {"id": "Focus/2", "prompt": "2 + 1 ="},
    ]
    (tmp_path / "g.jsonl").write_text('{"question": "1+1?", "answer": "So.\\n#### 2"}\n')
    assert [row["prompt"] for row in prompts("gsm8k", "--path", tmp_path / "g.jsonl")] == ["1+1?"]
    assert len(prompts("rewardbench2", "--path", place / "rows.jsonl", "--rows", 2)) == 2
    lost = CliRunner().invoke(app, ["data", "prompts", "gsm8k", "--out", str(tmp_path / "q.jsonl")])
    assert lost.exit_code == 2
    assert "--path" in lost.stderr


@pytest.mark.parametrize(("arguments", "match"), [
    (["nobench"], "Unknown benchmark"),
    (["rewardbench2=nowhere.jsonl"], "there is nothing"),
    (["rewardbench2"], "Give either --reward-model or --scores"),
    (["rewardbench2", "judgebench", "--scores", "s.jsonl"], "belongs to one benchmark"),
    (["rewardbench2", "--runs", "--reward-model", "x"], "--runs takes several"),
])
def test_bad_input_is_told_before_work(arguments, match, tmp_path):
    result = CliRunner().invoke(
        app, ["evaluate", "benchmark", *arguments, "--out", str(tmp_path / "out")]
    )
    assert result.exit_code != 0
    assert match in result.output or match in str(result.exception)
    assert not (tmp_path / "out").exists()
