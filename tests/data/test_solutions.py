"""Solutions of maths questions: every layout, keys by question and never by place, real rows."""

import gzip
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from rewardsteer.data.solutions import graded_solutions, question_key, read_solutions
from rewardsteer.errors import DataError

SHARED = (Path(__file__).parents[2] / "../shared/data").resolve()
real_data = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there")

QUESTIONS = [f"What is {i}+{i}?" for i in range(6)]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


def read(path):
    return [solution for _, solution in read_solutions(path)]


def nemo(number, sample, **more):
    """A row as NeMo-Skills writes it."""
    return {
        "problem": QUESTIONS[number], "generation": f"{sample}: so \\boxed{{{2 * number}}}.",
        "predicted_answer": str(2 * number), "expected_answer": str(2 * number),
        "is_correct": True, "error_message": "", "level": "Level 1",
    } | more


@pytest.fixture
def nemo_folder(tmp_path):
    """Two benchmarks; every file has its rows in another order."""
    for benchmark in ("GSM8K", "math"):
        for seed, sample in enumerate(("greedy", "rs0", "rs1")):
            rows = [nemo(i, f"{benchmark}/{sample}") for i in range(6)]
            random.Random(seed).shuffle(rows)
            write(tmp_path / benchmark / f"output-{sample}.jsonl", rows)
    return tmp_path


class TestLayouts:
    def test_own_with_everything(self, tmp_path):
        row = {
            "benchmark": "Sums", "question_id": "q7", "sample": "rs3", "model": "m",
            "prompt": "1+1?", "completion": "It is 2.", "predicted_answer": "2",
            "expected_answer": "2", "is_correct": False,
        }
        [(place, found)] = read_solutions(write(tmp_path / "x.jsonl", [row]))
        assert place.endswith("x.jsonl, line 1")
        assert found.model_dump(exclude_defaults=True) == row | {"benchmark": "sums"}

    def test_own_with_least(self, tmp_path):
        [found] = read(write(tmp_path / "sums-rs2.jsonl", [{"prompt": "1+1?", "completion": "2"}]))
        assert (found.prompt, found.completion) == ("1+1?", "2")
        assert found.question_id == question_key("1+1?")
        assert (found.sample, found.model, found.benchmark) == ("rs2", "", "sums-rs2")
        assert found.is_correct is None
        assert found.expected_answer is None
        assert found.predicted_answer == "2"

    def test_conversation_as_prompt(self, tmp_path):
        prompt = [{"role": "system", "content": "Think."}, {"role": "user", "content": "1+1?"}]
        rows = [{"prompt": prompt, "completion": "2"},
                {"prompt": prompt[1:], "completion": "2"}]
        first, second = read(write(tmp_path / "x.jsonl", rows))
        assert [message.content for message in first.prompt] == ["Think.", "1+1?"]
        assert first.question_id == question_key(first.prompt) != second.question_id

    def test_nemo_folder(self, nemo_folder):
        found = read(nemo_folder)
        counts = Counter((one.benchmark, one.sample) for one in found)
        assert counts == {
            (name, sample): 6 for name in ("gsm8k", "math") for sample in ("greedy", "rs0", "rs1")
        }
        for one in found:
            number = QUESTIONS.index(one.prompt)
            assert one.completion.lower().startswith(f"{one.benchmark}/{one.sample}: ")
            assert one.predicted_answer == one.expected_answer == str(2 * number)
            assert one.is_correct is True

    def test_nemo_folder_of_one_benchmark(self, nemo_folder):
        found = read(nemo_folder / "GSM8K")
        assert {one.benchmark for one in found} == {"gsm8k"}
        assert len(found) == 18

    def test_gz_reads_the_same(self, nemo_folder, tmp_path_factory):
        packed = tmp_path_factory.mktemp("gz")
        for file in nemo_folder.glob("*/*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            write(packed / file.parent.name / f"{file.name}.gz", rows)
        assert read(packed) == read(nemo_folder)

    def test_list_of_completions(self, tmp_path):
        row = {"dataset": "GSM8K", "question": "1+1?", "gold": 2, "completions": [
            {"model": "a", "prompt": "COT", "text": "It is 2.", "pred": 2.0, "is_correct": True},
            {"model": "b", "prompt": "COT", "text": "It is 3.", "pred": None, "is_correct": False},
            {"model": "b", "text": "The answer is 4."},
        ]}
        found = read(write(tmp_path / "x.jsonl.gz", [row]))
        assert {one.question_id for one in found} == {question_key("1+1?")}
        assert {one.prompt for one in found} == {"1+1?"}
        assert {one.benchmark for one in found} == {"gsm8k"}
        names = [(one.model, one.sample) for one in found]
        assert names == [("a", "COT"), ("b", "COT"), ("b", "2")]
        assert [one.predicted_answer for one in found] == ["2", None, "4"]
        assert [one.is_correct for one in found] == [True, False, None]
        assert [one.expected_answer for one in found] == ["2"] * 3

    def test_named_models(self, tmp_path):
        row = {"question": "1+1?", "ground_truth": "1+1=2\n#### 2",
               "6b": {"solution": "#### 3", "is_correct": False},
               "175b": {"solution": "#### 2", "is_correct": True}, "meta": {"level": 1}}
        found = {one.model: one for one in read(write(tmp_path / "x.jsonl", [row]))}
        assert {name: one.is_correct for name, one in found.items()} == {"6b": False, "175b": True}
        assert found["6b"].predicted_answer == "3"
        assert found["6b"].expected_answer == "2"

    def test_lists_of_solutions(self, tmp_path):
        row = {"question": "1+1?", "generated_solution": ["\\boxed{2}", "\\boxed{3}", "x"],
               "is_correct": [True, False, None]}
        found = read(write(tmp_path / "x.jsonl", [row]))
        assert [(one.sample, one.is_correct, one.predicted_answer) for one in found] == [
            ("0", True, "2"), ("1", False, "3")
        ]

    def test_lists_of_different_length(self, tmp_path):
        row = {"question": "1+1?", "generated_solution": ["2", "3"], "is_correct": [True]}
        with pytest.raises(DataError, match="line 1"):
            read(write(tmp_path / "x.jsonl", [row]))

    def test_graded_solutions(self):
        row = {"question": "?", "completions": [{"text": "a", "is_correct": 1}, {"text": "b"},
                                                {"text": "c", "is_correct": False}]}
        assert [(one.completion, one.is_correct) for one in graded_solutions(row, "a")] == [
            ("a", True), ("c", False)]


class TestAnswersAndLabels:
    @pytest.mark.parametrize(("given", "expected"), [
        ({}, "1200"), ({"predicted_answer": "7.50"}, "7.5"), ({"predicted_answer": None}, None),
        ({"pred": 3.0}, "3"), ({"predicted_answer": "$1,000"}, "1000"),
    ])
    def test_extracted_only_when_absent(self, tmp_path, given, expected):
        row = {"prompt": "?", "completion": "So \\boxed{1,200}.", **given}
        [found] = read(write(tmp_path / "x.jsonl", [row]))
        assert found.predicted_answer == expected

    def test_an_empty_answer_is_none(self, tmp_path):
        """An answer that is no text never votes, so it must not become the ballot ''."""
        rows = [{"prompt": "?", "completion": "I give up.", "predicted_answer": "", "sample": "a"}]
        [found] = read(write(tmp_path / "x.jsonl", rows))
        assert found.predicted_answer is None

    def test_nothing_to_extract(self, tmp_path):
        rows = [{"prompt": "?", "completion": "I do not know"}]
        assert read(write(tmp_path / "x.jsonl", rows))[0].predicted_answer is None

    @pytest.mark.parametrize(("given", "label"), [
        (True, True), (False, False), (1, True), (0, False), (None, None), ("yes", None),
    ])
    def test_labels(self, tmp_path, given, label):
        row = {"prompt": "?", "completion": "2", "is_correct": given}
        assert read(write(tmp_path / "x.jsonl", [row]))[0].is_correct is label


class TestKeys:
    def test_quotes_spaces_and_width_do_not_matter(self):
        plain = "Janet's \"duck\" eggs cost 3 each"
        for other in (
            "Janet’s “duck” eggs cost 3 each", " Janet's \"duck\"\n eggs  cost\t3 each\n",
            "Janet‘s \"duck\" eggs cost 3 each", "Janet's \"duck\" eggs cost ３ each",
        ):
            assert question_key(other) == question_key(plain)
        assert question_key(plain.replace("3", "4")) != question_key(plain)
        assert question_key(plain.lower()) != question_key(plain)
        assert re.fullmatch("[0-9a-f]{16}", question_key(plain))

    def test_shuffled_files_agree(self, nemo_folder):
        by_question = {}
        for one in read(nemo_folder):
            by_question.setdefault(one.question_id, []).append(one)
        assert len(by_question) == 6
        for solutions in by_question.values():
            assert len({one.prompt for one in solutions}) == 1
            assert len(solutions) == 6
        orders = [
            [json.loads(line)["problem"] for line in file.read_text().splitlines()]
            for file in sorted((nemo_folder / "math").iterdir())
        ]
        assert orders[0] != orders[1]  # else position would do as well

    def test_own_identifier_wins(self, tmp_path):
        rows = [{"prompt": "a", "completion": "1", "question_id": 12}]
        assert read(write(tmp_path / "x.jsonl", rows))[0].question_id == "12"

    @pytest.mark.parametrize(("file", "sample"), [
        ("output-rs3.jsonl", "rs3"), ("output-greedy.jsonl", "greedy"),
        ("my-run-rs12.jsonl.gz", "rs12"), ("greedy.jsonl", "greedy"), ("plain.jsonl", "plain"),
    ])
    def test_sample_from_the_file_name(self, tmp_path, file, sample):
        [found] = read(write(tmp_path / file, [nemo(1, "")]))
        assert found.sample == sample


class TestRefused:
    def test_twice_in_one_file(self, tmp_path):
        path = write(tmp_path / "output-rs0.jsonl", [nemo(1, "a"), nemo(2, "a"), nemo(1, "b")])
        with pytest.raises(DataError) as caught:
            read(path)
        message = str(caught.value)
        assert f"{path}, line 3" in message
        assert f"already in {path}, line 1;" in message
        assert "rs0" in message

    def test_twice_in_two_files(self, tmp_path):
        first = write(tmp_path / "gsm8k" / "a-rs0.jsonl", [nemo(2, "a"), nemo(1, "a")])
        second = write(tmp_path / "gsm8k" / "b-rs0.jsonl", [nemo(1, "a")])
        with pytest.raises(DataError) as caught:
            read(tmp_path)
        assert f"{second}, line 1" in str(caught.value)
        assert f"{first}, line 2" in str(caught.value)

    def test_same_question_elsewhere_is_no_duplicate(self, tmp_path):
        more = ({}, {"sample": "s"}, {"model": "m"}, {"benchmark": "other"})
        rows = [nemo(1, "a") | fields for fields in more]
        assert len(read(write(tmp_path / "x.jsonl", rows))) == 4

    @pytest.mark.parametrize(("row", "part"), [
        ({"question": "?"}, "found the fields question"),
        ({"completion": "2", "is_correct": True}, "completion, is_correct"),
        ({"question": "", "completion": "2"}, "completion, question"),
        ({"question": "?", "completions": []}, "completions, question"),
        ({"question": 3, "completion": "2"}, "completion, question"),
    ])
    def test_fields_missing(self, tmp_path, row, part):
        path = write(tmp_path / "x.jsonl", [nemo(1, "a"), row])
        with pytest.raises(DataError) as caught:
            read(path)
        assert f"{path}, line 2" in str(caught.value)
        assert part in str(caught.value)

    @pytest.mark.parametrize("prompt", [["a"], [{"role": "user"}], [{"role": "x", "content": 3}]])
    def test_no_conversation(self, tmp_path, prompt):
        with pytest.raises(DataError, match="line 1"):
            read(write(tmp_path / "x.jsonl", [{"prompt": prompt, "completion": "2"}]))

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DataError, match="no such file or folder"):
            read(tmp_path / "absent")
        with pytest.raises(DataError, match="found none"):
            read(tmp_path)
        (tmp_path / "gsm8k").mkdir()
        (tmp_path / "gsm8k" / "notes.txt").write_text("x")
        with pytest.raises(DataError, match="found none"):
            read(tmp_path)

    def test_empty_file(self, tmp_path):
        (tmp_path / "x.jsonl").write_text("\n")
        with pytest.raises(DataError, match="no rows"):
            read(tmp_path / "x.jsonl")


@real_data
class TestReal:
    def test_gsm8k_of_several_models(self):
        found = read(SHARED / "completions" / "GSM8K_multi.jsonl.gz")
        assert len(found) == 23_742
        assert len({one.question_id for one in found}) == 1_319
        assert sum(one.is_correct for one in found) == 10_486
        assert {one.benchmark for one in found} == {"gsm8k"}
        assert all(one.expected_answer is not None for one in found)

    def test_nemo_skills(self):
        found = read(SHARED / "completions" / "nemo_skills")
        assert len(found) == 150
        assert set(Counter(one.question_id for one in found).values()) == {3}
        assert Counter(one.sample for one in found) == {"rs0": 50, "rs1": 50, "rs2": 50}
        assert {one.benchmark for one in found} == {"nemo_skills"}
        assert 0 < sum(one.is_correct for one in found) < 150
        assert any(one.predicted_answer is None for one in found)
