"""The same samples scored by two reward models, from the files of ``rewardsteer score``."""

from collections.abc import Sequence
from pathlib import Path

from rewardsteer.data.solutions import GREEDY, question_key
from rewardsteer.errors import DataError
from rewardsteer.evaluation.overoptimization import Recorded
from rewardsteer.faults import checked
from rewardsteer.outputs import read_jsonl
from rewardsteer.records import Solution

Key = tuple[str, str, str, str]  # benchmark, question, model, sample


def load_recorded(proxy: Path, gold: Path | None) -> tuple[dict[str, Recorded], int]:
    """Samples by prompt, and the number of samples left out because a value is missing.

    Args:
        proxy: output of ``rewardsteer score`` with the reward model that chooses.
        gold: its output with the reward model that counts; None: the labels ``is_correct`` count.

    Raises:
        DataError: nothing there, malformed rows, one sample twice, or two files that hold
            different texts for one sample.
    """
    ours = read_samples(proxy)
    theirs = None if gold is None else read_samples(gold)
    prompts: dict[str, list[tuple[str, float, float]]] = {}
    left_out = 0
    for key, (one, place) in ours.items():
        other = one if theirs is None else theirs.get(key, (None, ""))[0]
        if other is not None and other.completion != one.completion:
            raise DataError(
                f"{place}: sample {key[3]!r} of question {key[1]!r} has another text in {gold}; "
                "score the same samples with both reward models."
            )
        value = None if other is None else (
            other.is_correct if theirs is None else other.reward
        )
        if one.reward is None or value is None:
            left_out += 1
            continue
        name = "/".join(key[:2])
        prompts.setdefault(name, []).append((one.completion, one.reward, float(value)))
    if not prompts:
        raise DataError(
            f"None of the {len(ours)} samples in {proxy} has both a reward and "
            + ("a label 'is_correct'; give gold= (--gold)." if gold is None else f"one in {gold}.")
        )
    return {
        name: Recorded(*(list(column) for column in zip(*rows, strict=True)))
        for name, rows in prompts.items()
    }, left_out


def read_samples(path: Path) -> dict[Key, tuple[Solution, str]]:
    """Scored samples without greedy ones, each with its file and line.

    Raises:
        DataError: nothing there, malformed rows, or one sample twice.
    """
    found: dict[Key, tuple[Solution, str]] = {}
    for file in _files(path):
        for number, row in read_jsonl(file):
            place = f"{file}, line {number}"
            known = {name: value for name, value in row.items() if name in Solution.model_fields}
            known.setdefault("benchmark", file.stem)
            try:
                one = checked(Solution, known)
            except ValueError as error:
                raise DataError(f"{place}: no scored sample ({error}).") from error
            question = one.question_id or question_key(one.prompt)
            key = (one.benchmark, question, one.model, one.sample or str(number))
            if key in found:
                raise DataError(f"{place}: this sample appears already in {found[key][1]}.")
            found[key] = (one, place)
    return found


def _files(path: Path) -> Sequence[Path]:
    if path.is_file():
        return [path]
    files = sorted((path / "all").glob("*.jsonl"))
    if not files:
        raise DataError(
            f"Expected a file of scored samples or {path / 'all'}/*.jsonl, found none; write them "
            f"with 'rewardsteer score' (of {GREEDY} answers there is one a question)."
        )
    return files
