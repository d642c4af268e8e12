"""Split graded solutions of several files into training and held-out questions.

    python runs/split_solutions.py OUT SHARE SEED QUESTIONS TRAIN_FILE… [-- TEST_FILE…]

Questions of the files before ``--`` are split: OUT/test/BENCHMARK.jsonl gets the solutions of a
SHARE, OUT/train.jsonl those of the rest. Of files after ``--``, QUESTIONS questions drawn at random
are held out (0: all). White space around solutions is removed, because it differs between the
models that wrote them. Solutions without text are left out. The output has our own layout.
"""

import json
import random
import sys
from pathlib import Path

from rewardsteer.data.solutions import read_solutions


def main(out: str, share: str, seed: str, questions: str, *files: str) -> None:
    place = Path(out)
    (place / "test").mkdir(parents=True, exist_ok=True)
    whole = list(files[files.index("--") + 1 :]) if "--" in files else []
    split = [file for file in files[: len(files) - len(whole)] if file != "--"]
    rows = [row for file in split for row in _rows(Path(file))]
    keys = sorted({row["question_id"] for row in rows})
    held_out = set(random.Random(seed).sample(keys, round(float(share) * len(keys))))
    _write(place / "train.jsonl", [row for row in rows if row["question_id"] not in held_out])
    _write(
        place / "test" / "gsm8k.jsonl", [row for row in rows if row["question_id"] in held_out]
    )
    for file in whole:
        found = list(_rows(Path(file)))
        keys = sorted({row["question_id"] for row in found})
        wanted = set(random.Random(seed).sample(keys, min(int(questions) or len(keys), len(keys))))
        found = [row for row in found if row["question_id"] in wanted]
        _write(place / "test" / f"{found[0]['benchmark']}.jsonl", found)


def _rows(file: Path) -> list[dict[str, object]]:
    rows = []
    for _, solution in read_solutions(file):
        # The files name the same benchmark in different ways.
        name = "svamp" if "svamp" in file.name.lower() else "gsm8k"
        text = solution.completion.strip()
        if text:
            row = solution.model_copy(update={"completion": text, "benchmark": name})
            rows.append(row.model_dump(mode="json", exclude_defaults=True))
    return rows


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    questions = len({row["question_id"] for row in rows})
    print(f"{path}: {len(rows)} solutions of {questions} questions")


if __name__ == "__main__":
    main(*sys.argv[1:])
