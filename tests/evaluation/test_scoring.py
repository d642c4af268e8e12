"""Scores in files, and `rewardsteer score` then `evaluate correctness` on folders of solutions."""

import json
import resource

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.data.render import as_prompt
from rewardsteer.data.rows import ListedRows
from rewardsteer.data.template import Template
from rewardsteer.errors import DataError, NonFiniteError, OutputError
from rewardsteer.evaluation import scoring
from rewardsteer.evaluation.scoring import Settings, score_rows
from rewardsteer.evaluation.shards import partial_folder
from rewardsteer.goals.files import save_goals
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.finite import require_finite
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.limits import check_length
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.text_scorer import TextScorer
from tests.fakes import character_tokenizer, save_tiny

LIMIT = 512  # positions of the tiny llama


def make(root, name, kind="scalar", seed=0, **template):
    base = save_tiny(root / f"{name}-base", seed=seed)
    torch.manual_seed(seed)
    model = RewardModel.from_base(base, HeadConfig(kind=kind))
    card = CheckpointCard(
        head=HeadConfig(kind=kind), objective="bradley_terry",
        template=Template(**template).model_dump(),
    )
    model.save_pretrained(root / name, character_tokenizer(), card)
    return load_scorer(root / name)


def make_goal(scorer):
    torch.manual_seed(5)
    vectors = torch.randn(1, scorer.hidden_size)
    made = Provenance(kind="mean", model_fingerprint=scorer.fingerprint)
    return GoalState("preferred", vectors, made)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Reward models, and a goal of each of the first two."""
    root = tmp_path_factory.mktemp("scoring")
    make(root, "vocabulary", "vocabulary", seed=3)
    make(root, "open", append_eos=False)
    for number, name in enumerate(("plain", "other")):
        scorer = make(root, name, seed=number)
        (root / f"goal-{name}").mkdir()
        save_goals(root / f"goal-{name}", {"preferred": make_goal(scorer)})
    return root


@pytest.fixture(scope="module", params=["plain", "vocabulary"])
def scorer(root, request):
    return load_scorer(root / request.param)


ROWS = [
    {"prompt": "What is 7+8? ", "completion": "15", "tag": 1, "reward": 99.0},
    {"prompt": "zz top" * 12, "completion": "me and you, " * 9, "id": "b"},
    {"prompt": "a", "completion": ""},
    {"prompt": [{"role": "user", "content": "Who?"}], "completion": "I", "tag": None},
    {"prompt": "Sum", "completion": "seven" * 20},
    {"prompt": "Sum", "completion": "eight"},
]
LONG = {"prompt": "p" * 100, "completion": "c" * LIMIT, "tag": "long"}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def scored(scorer, rows, path, **settings):
    report = score_rows(scorer, rows, path, Settings(**settings))
    assert report.rows == len(rows)
    return read(path)


def alone(scorer, row, goal=None):
    prompts, responses = scorer.encode([as_prompt(row["prompt"])], [row["completion"]])
    [scores] = scorer.token_scores_ids(prompts, responses, batch_size=1, goal=goal)
    return scores


class TestScoreRows:
    def test_order_and_rewards(self, scorer, tmp_path):
        found = scored(scorer, ROWS, tmp_path / "y.jsonl")
        prompts = [as_prompt(row["prompt"]) for row in ROWS]
        expected = scorer.score(prompts, [row["completion"] for row in ROWS])
        assert [row.pop("reward") for row in found] == pytest.approx(list(expected), abs=1e-4)
        assert np.ptp(expected) > 0.1  # else order would not show
        assert found == [{k: v for k, v in row.items() if k != "reward"} for row in ROWS]
        assert not list(tmp_path.glob("*.partial"))

    def test_tokens_equal_one_row_at_a_time(self, scorer, tmp_path):
        goal = make_goal(scorer)
        found = scored(scorer, ROWS, tmp_path / "y.jsonl", goal=goal, tokens=True)
        for row, one in zip(ROWS, found, strict=True):
            expected = alone(scorer, row, goal)
            length = len(row["completion"]) + 1  # end-of-text
            assert one["token_count"] == len(one["token_rewards"]) == length
            assert len(one["token_similarities"]) == length
            assert one["prompt_tokens"] == expected.prompt_tokens
            np.testing.assert_allclose(one["token_rewards"], expected.rewards, atol=1e-4)
            np.testing.assert_allclose(one["token_similarities"], expected.similarities, atol=1e-4)
            assert one["reward"] == pytest.approx(one["token_rewards"][-1], abs=1e-5)
        assert np.ptp(found[4]["token_similarities"]) > 0.01

    def test_similarities_are_cosines_of_hidden_states(self, scorer, tmp_path):
        goal, row = make_goal(scorer), ROWS[0]
        [found] = scored(scorer, [row], tmp_path / "y.jsonl", goal=goal, tokens=True)
        prompts, responses = scorer.encode([row["prompt"]], [row["completion"]])
        with torch.no_grad():
            hidden = scorer.reward_model.backbone(
                input_ids=torch.tensor([prompts[0] + responses[0]])
            ).last_hidden_state[0, len(prompts[0]):].double()
        cosines = torch.cosine_similarity(hidden, goal.vectors.double(), dim=-1)
        np.testing.assert_allclose(found["token_similarities"], cosines, atol=1e-4)

    def test_without_goal_or_tokens(self, scorer, tmp_path):
        [found] = scored(scorer, ROWS[:1], tmp_path / "a.jsonl", tokens=True)
        assert "token_similarities" not in found
        [found] = scored(scorer, ROWS[:1], tmp_path / "b.jsonl", goal=make_goal(scorer))
        assert set(found) == {"prompt", "completion", "tag", "reward"}

    def test_too_long_keeps_no_reward_and_is_counted(self, scorer, tmp_path):
        report = score_rows(scorer, [ROWS[0], LONG, ROWS[1]], tmp_path / "y.jsonl", Settings())
        assert report == (3, 1)
        first, second, third = read(tmp_path / "y.jsonl")
        assert second["reward"] is None
        assert f"{100 + LIMIT + 1} tokens" in second["skipped"]
        assert str(LIMIT) in second["skipped"]
        assert second["tag"] == "long"
        assert "skipped" not in first | third
        assert first["reward"] == pytest.approx(alone(scorer, ROWS[0]).rewards[-1], abs=1e-4)

    @pytest.mark.parametrize(("over", "skipped"), [(0, 0), (1, 1)])
    def test_the_limit_itself_is_read(self, scorer, tmp_path, over, skipped):
        row = {"prompt": "p" * 10, "completion": "c" * (LIMIT - 11 + over)}
        report = score_rows(scorer, [row], tmp_path / "y.jsonl", Settings())
        assert report.skipped == skipped

    def test_all_too_long(self, scorer, tmp_path):
        assert score_rows(scorer, [LONG], tmp_path / "y.jsonl", Settings()).skipped == 1

    def test_empty_completion(self, root, scorer, tmp_path):
        """With end-of-text it has a token to read; without, it has none."""
        row = {"prompt": "abc", "completion": ""}
        [found] = scored(scorer, [row], tmp_path / "a.jsonl", tokens=True)
        assert found["token_count"] == 1
        assert found["reward"] == pytest.approx(alone(scorer, row).rewards[-1], abs=1e-4)
        [bare] = scored(load_scorer(root / "open"), [row], tmp_path / "b.jsonl", tokens=True)
        assert bare == row | {"reward": None, "skipped": "the completion holds no token"}

    def test_batch_tokens_does_not_matter(self, scorer, tmp_path):
        goal = make_goal(scorer)
        runs = [
            scored(scorer, ROWS, tmp_path / f"{n}.jsonl", goal=goal, tokens=True, batch_tokens=n)
            for n in (1, 150, 100_000)
        ]
        for rows in zip(*runs, strict=True):
            for one in rows[1:]:
                assert one.keys() == rows[0].keys()
                for name in ("reward", "token_rewards", "token_similarities"):
                    np.testing.assert_allclose(one[name], rows[0][name], atol=1e-4)

    def test_old_scores_are_replaced(self, scorer, tmp_path):
        stale = ROWS[0] | {"skipped": "x", "token_rewards": [1], "token_similarities": [2]}
        [found] = scored(scorer, [stale], tmp_path / "y.jsonl")
        assert set(found) == {"prompt", "completion", "tag", "reward"}
        assert found["reward"] != 99.0


class TestResume:
    def interrupted(self, scorer, output, rows, monkeypatch, calls=2):
        real, seen = scoring.score_shard, []

        def failing(*arguments):
            seen.append(1)
            if len(seen) > calls:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(scoring, "score_shard", failing)
            with pytest.raises(KeyboardInterrupt):
                score_rows(scorer, ListedRows(rows, 2), output, Settings(tokens=True))
        return partial_folder(output)

    @pytest.mark.parametrize("ending", ["jsonl", "parquet"])
    def test_same_file_as_uninterrupted(self, scorer, tmp_path, monkeypatch, ending):
        rows = [LONG | {"tag": 0}, *(row for row in ROWS if isinstance(row["prompt"], str))]
        whole, output = tmp_path / f"whole.{ending}", tmp_path / f"y.{ending}"
        expected = score_rows(scorer, ListedRows(rows, 2), whole, Settings(tokens=True))
        partial = self.interrupted(scorer, output, rows, monkeypatch)
        assert not output.exists()
        assert {path.name for path in partial.iterdir()} == {
            "run.json", "00000000.jsonl", "00000001.jsonl"
        }
        (partial / ".00000002.jsonl.x1").write_text('{"prompt": "to')
        (partial / "whole").write_text("half")
        done = []
        report = score_rows(
            scorer, ListedRows(rows, 2), output, Settings(tokens=True), resume=True,
            announce=lambda *progress: done.append(progress),
        )
        assert done == [(4, 6), (6, 6)]
        assert report == expected == (6, 1)
        assert output.read_bytes() == whole.read_bytes()
        assert not partial.exists()
        assert {path.name for path in tmp_path.iterdir()} == {
            name + end for name in (output.name, whole.name) for end in ("", ".run.json")
        }

    def test_another_task_is_refused(self, root, scorer, tmp_path, monkeypatch):
        output = tmp_path / "y.jsonl"
        partial = self.interrupted(scorer, output, ROWS, monkeypatch)
        before = {path.name: path.read_bytes() for path in partial.iterdir()}
        for reader, rows, settings, what in (
            (scorer, ListedRows([ROWS[0], *ROWS[2:], ROWS[1]], 2), Settings(tokens=True), "input"),
            (scorer, ListedRows(ROWS[:3], 2), Settings(tokens=True), "input, rows"),
            (scorer, ListedRows(ROWS, 3), Settings(tokens=True), "shard_rows"),
            (scorer, ListedRows(ROWS, 2), Settings(), "tokens"),
            (scorer, ListedRows(ROWS, 2), Settings(make_goal(scorer), True), "goal"),
            (load_scorer(root / "other"), ListedRows(ROWS, 2), Settings(tokens=True), "fingerpr"),
        ):
            with pytest.raises(DataError, match=f"other {what}.*--overwrite"):
                score_rows(reader, rows, output, settings, resume=True)
        assert {path.name: path.read_bytes() for path in partial.iterdir()} == before
        assert not output.exists()

    def test_taken(self, scorer, tmp_path, monkeypatch):
        output = tmp_path / "y.jsonl"
        partial = self.interrupted(scorer, output, ROWS, monkeypatch)
        with pytest.raises(OutputError, match="--resume"):
            score_rows(scorer, ROWS, output, Settings())
        score_rows(scorer, ROWS, output, Settings(), overwrite=True)
        assert not partial.exists()
        assert "token_rewards" not in read(output)[0]
        with pytest.raises(OutputError, match="exists"):
            score_rows(scorer, ROWS, output, Settings())

    def test_a_finished_run_has_nothing_left(self, scorer, tmp_path):
        """Also where the kill came between the output's name and the tidying up."""
        output = tmp_path / "y.jsonl"
        expected = score_rows(scorer, ROWS, output, Settings())
        before = output.read_bytes()
        record = tmp_path / "y.jsonl.run.json"
        assert score_rows(scorer, ROWS, output, Settings(), resume=True) == expected
        partial_folder(output).mkdir()
        record.rename(partial_folder(output) / "run.json")
        assert score_rows(scorer, ROWS, output, Settings(), resume=True) == expected
        assert output.read_bytes() == before
        assert record.exists()
        assert not partial_folder(output).exists()
        with pytest.raises(DataError, match="other tokens"):
            score_rows(scorer, ROWS, output, Settings(tokens=True), resume=True)
        record.unlink()
        with pytest.raises(OutputError, match="nothing says what made it"):
            score_rows(scorer, ROWS, output, Settings(), resume=True)

    def test_a_damaged_shard_is_named(self, scorer, tmp_path, monkeypatch):
        output = tmp_path / "y.jsonl"
        shard = self.interrupted(scorer, output, ROWS, monkeypatch) / "00000001.jsonl"
        content = shard.read_bytes()
        for damaged, what in (
            (content[:-4], "cannot be read"), (content.splitlines(True)[0], "holds 1 rows"),
        ):
            shard.write_bytes(damaged)
            with pytest.raises(OutputError, match=what):
                score_rows(
                    scorer, ListedRows(ROWS, 2), output, Settings(tokens=True), resume=True
                )
            assert not output.exists()
        shard.unlink()
        score_rows(scorer, ListedRows(ROWS, 2), output, Settings(tokens=True), resume=True)
        assert len(read(output)) == len(ROWS)

    @pytest.mark.parametrize(("limit", "kept"), [(100, "0 of 3"), (2000, "3 of 3")])
    def test_a_full_disk_keeps_what_is_done(self, scorer, tmp_path, limit, kept):
        """The system refuses to write files larger than the limit: first the shards, then what
        joins them."""
        rows = [{"prompt": "a" * 200, "completion": "b" * 20}] * 12
        output, whole = tmp_path / "y.jsonl", tmp_path / "whole.jsonl"
        score_rows(scorer, ListedRows(rows, 4), whole, Settings())
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OutputError, match=f"cannot be written.* {kept} shards.*--resume"):
                score_rows(scorer, ListedRows(rows, 4), output, Settings())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not output.exists()
        score_rows(scorer, ListedRows(rows, 4), output, Settings(), resume=True)
        assert output.read_bytes() == whole.read_bytes()


def test_values_of_steps(scorer, tmp_path):
    """Of the row's own steps, else of the completion's parts; a skipped row has none."""
    rows = [
        {"prompt": "a", "completion": "one\n\ntwo"},
        {"prompt": "b", "completion": "three four", "steps": ["three", "four"]},
        {"prompt": "c", "completion": "x" * LIMIT},
        {"prompt": "d", "completion": "five", "steps": ["x" * LIMIT]},
    ]
    found = scored(scorer, rows, tmp_path / "y.jsonl", steps=True)
    right = scorer.step_scores(["a", "b"], [["one", "two"], ["three", "four"]])
    assert [row["step_rewards"] for row in found[2:]] == [None, None]
    assert all("at most" in row["skipped"] for row in found[2:])
    for row, values in zip(found, right, strict=False):
        assert row["step_rewards"] == pytest.approx(list(values), abs=1e-5)
        assert row["reward"] == pytest.approx(
            float(scorer.score([row["prompt"]], [row["completion"]])[0]), abs=1e-5
        )
    parquet = tmp_path / "y.parquet"
    score_rows(scorer, rows[:1] + rows[2:3], parquet, Settings(steps=True))
    import pyarrow.parquet as pq

    table = pq.read_table(parquet).to_pylist()
    assert table[0]["step_rewards"] == pytest.approx(found[0]["step_rewards"], abs=1e-5)
    assert table[1]["step_rewards"] is None


def test_parquet_has_the_same_rows(scorer, tmp_path):
    rows = [dict(row, tag=number) for number, row in enumerate(ROWS) if row["prompt"] != ""]
    rows = [row for row in rows if isinstance(row["prompt"], str)]
    rows[2] = dict(rows[2], extra=[1, 2], prompt="p" * LIMIT)
    goal = make_goal(scorer)
    for name in ("y.jsonl", "y.parquet"):
        score_rows(scorer, ListedRows(rows, 2), tmp_path / name, Settings(goal, True))
    expected = read(tmp_path / "y.jsonl")
    found = pq.read_table(tmp_path / "y.parquet").to_pylist()
    assert expected[2]["reward"] is found[2]["reward"] is None
    for one, other in zip(found, expected, strict=True):
        assert {name: value for name, value in one.items() if value is not None} == {
            name: value for name, value in other.items() if value is not None
        }


def test_parquet_refuses_mixed_fields_before_any_work(scorer, tmp_path):
    with pytest.raises(DataError, match="'prompt' holds values that do not fit"):
        score_rows(scorer, ROWS, tmp_path / "y.parquet", Settings())
    assert not list(tmp_path.iterdir())


def test_a_reward_that_is_no_number_names_the_row(scorer, tmp_path, monkeypatch):
    rows = ListedRows([LONG, *ROWS], 3)
    values = np.array([np.nan, 1.0])
    monkeypatch.setattr(scorer, "score_ids", lambda *_, numbers, **__: require_finite(
        values if len(numbers) == 2 else values[1:].repeat(len(numbers)), numbers
    ) or values[1:].repeat(len(numbers)))
    with pytest.raises(NonFiniteError, match="row 2 is nan"):
        score_rows(scorer, rows, tmp_path / "y.jsonl", Settings())


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result, *words):
    assert result.exit_code == 2, result.output
    message = " ".join(result.stderr.split())
    assert "error: " in message
    for word in words:
        assert word in message


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def nemo_folder(path, benchmarks=("sums", "ones"), labels=True, questions=12):
    """``ones`` has right solutions alone; every other benchmark both kinds."""
    for name in benchmarks:
        for sample in ("greedy", "rs0", "rs1", "rs2"):
            write(path / name / f"output-{sample}.jsonl", [
                {
                    "problem": f"What is {i}+1?", "generation": f"{sample} {'x' * i} \\boxed{{2}}",
                    **({"expected_answer": "2", "is_correct": (
                        name == "ones" or (i + len(sample) + ord(sample[-1])) % 2 == 0
                    )} if labels else {}),
                }
                for i in range(questions)
            ])
    return path


def score(root, folder, output, *more, model="plain"):
    return run(
        "score", "--reward-model", root / model, "--input", folder, "--output", output, *more
    )


def evaluate(scores, out, *more):
    return run(
        "evaluate", "correctness", "--scores", scores, "--out", out, "orders=2",
        *more,
    )


class TestCommands:
    @pytest.fixture(scope="class")
    def scores(self, root, tmp_path_factory):
        folder = tmp_path_factory.mktemp("nemo")
        result = score(
            root, nemo_folder(folder / "in"), folder / "out", "--goal", root / "goal-plain"
        )
        assert result.exit_code == 0, result.output
        return folder / "out"

    def test_files(self, root, scores):
        found = {str(path.relative_to(scores)) for path in scores.rglob("*") if path.is_file()}
        assert found == {
            "run.json", *(
                f"{p}/{b}.jsonl{end}" for p in ("all", "greedy") for b in ("sums", "ones")
                for end in ("", ".run.json")
            )
        }
        for name in ("sums", "ones"):
            assert {row["sample"] for row in read(scores / f"greedy/{name}.jsonl")} == {"greedy"}
            rows = read(scores / f"all/{name}.jsonl")
            assert {row["sample"] for row in rows} == {"rs0", "rs1", "rs2"}
            assert len(rows) == 36
            for row in rows:
                assert len(row["token_rewards"]) == len(row["token_similarities"])
                assert row["completion"].startswith(row["sample"])
                assert row["predicted_answer"] == "2"
        made = json.loads((scores / "run.json").read_text())
        assert made["fingerprint"] == load_scorer(root / "plain").fingerprint
        assert made["goal"]["name"] == "preferred"
        assert made["goal"]["model_fingerprint"] == made["fingerprint"]

    def test_goal_of_another_model_is_refused(self, root, tmp_path):
        folder, output = nemo_folder(tmp_path / "in"), tmp_path / "out"
        refused(score(root, folder, output, "--goal", root / "goal-other"), "other weights")
        assert not list(output.rglob("*.jsonl"))

    def test_refused_goal_has_not_taken_the_folder(self, root, tmp_path):
        folder, output = nemo_folder(tmp_path / "in"), tmp_path / "out"
        assert score(root, folder, output, "--goal", root / "goal-other").exit_code == 2
        result = score(root, folder, output, "--goal", root / "goal-plain")
        assert result.exit_code == 0, result.output

    def test_goal_of_another_model_overwrites_nothing(self, root, tmp_path):
        folder, output = nemo_folder(tmp_path / "in"), tmp_path / "out"
        assert score(root, folder, output).exit_code == 0
        before = (output / "all/sums.jsonl").read_bytes()
        refused(score(root, folder, output, "--goal", root / "goal-other", "--overwrite"), "error")
        assert (output / "all/sums.jsonl").read_bytes() == before

    def test_no_goal(self, root, tmp_path):
        output = tmp_path / "out"
        assert score(root, nemo_folder(tmp_path / "in"), output, "--goal", "none").exit_code == 0
        assert json.loads((output / "run.json").read_text())["goal"] is None
        [row, *_] = read(output / "all/sums.jsonl")
        assert "token_rewards" in row
        assert "token_similarities" not in row

    def test_benchmark_named_as_on_the_hub(self, root, tmp_path):
        """A field ``dataset`` may hold a hub name with a slash; its scores must be found again."""
        rows = [
            {"question": f"{i}?", "dataset": "openai/gsm8k",
             "completions": [{"text": "2", "is_correct": i % 2 == 0}, {"text": "4" * i,
                              "is_correct": False}]}
            for i in range(4)
        ]
        path = write(tmp_path / "in.jsonl", rows)
        assert score(root, path, tmp_path / "out", "--goal", "none").exit_code == 0
        result = evaluate(tmp_path / "out", tmp_path / "metrics")
        assert result.exit_code == 0, result.output

    def test_evaluation(self, scores, tmp_path):
        result = evaluate(scores, tmp_path / "out")
        assert result.exit_code == 0, result.output
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert set(metrics) == {"sums", "ones"}
        assert {
            "auroc", "auroc_low", "auroc_similarity", "average_precision", "auroc_by_percentile",
            "auroc_per_question", "by_samples", "filtering", "stopping", "calibration", "greedy",
        } <= set(metrics["sums"])
        assert 0 < metrics["sums"]["auroc"] < 1
        assert "all 36 scored solutions are right" in metrics["ones"]["undefined"]
        assert "auroc" not in metrics["ones"]
        assert metrics["ones"]["majority_accuracy"] == 1.0
        assert "ones: all 36 scored solutions are right: no AUROC" in result.stderr
        plots = {path.name for path in (tmp_path / "out").glob("*.svg")}
        assert {
            "sums-roc.svg", "sums-percentiles.svg", "sums-filtering.svg", "ones-filtering.svg",
            "sums-reliability-reward.svg", "sums-reliability-similarity.svg",
        } <= plots
        assert "ones-roc.svg" not in plots
        for path in (tmp_path / "out").glob("*.svg"):
            assert "<svg" in path.read_text()

    def test_no_labels(self, root, tmp_path):
        folder = nemo_folder(tmp_path / "in", ("sums",), labels=False)
        assert score(root, folder, tmp_path / "scores").exit_code == 0
        result = evaluate(tmp_path / "scores", tmp_path / "out")
        refused(result, "None of the 48 solutions of 'sums' has a label", "is_correct")
        assert not (tmp_path / "out").exists()

    def test_one_solution_twice(self, scores, tmp_path):
        rows = read(scores / "all/sums.jsonl")
        path = write(tmp_path / "all" / "sums.jsonl", [*rows, rows[3]])
        assert "sums: 1 row left out: each repeats another one" in evaluate(
            tmp_path, tmp_path / "out").stderr
        write(path, [*rows, rows[3] | {"completion": "another"}])
        refused(evaluate(tmp_path, tmp_path / "no"), f"{path}, line 37", f"({path}, line 4)")


def test_a_model_of_texts_skips_the_rows_that_it_cannot_score(tmp_path):
    """Few rows are scored twice to find them, and the reason is about the row that it is in."""
    scored = []

    class Short(TextScorer):
        def score(self, prompts, completions, *, batch_size=16, closed=True):
            for number, text in enumerate(completions, start=1):
                check_length(number, len(text), 3)
            scored.extend(completions)
            return np.array([float(len(text)) for text in completions])

    rows = [{"prompt": "a", "completion": "b" * (5 if n == 37 else n % 3)} for n in range(100)]
    assert score_rows(Short(), rows, tmp_path / "y.jsonl", Settings()).skipped == 1
    found = read(tmp_path / "y.jsonl")
    assert [row["reward"] for row in found] == [None if n == 37 else n % 3 for n in range(100)]
    assert found[37]["skipped"].startswith("This row has 5 tokens")
    assert len(scored) == 99
