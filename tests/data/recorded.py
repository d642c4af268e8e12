"""Prepared data of every kind of source, written down: ids, counts, drops, the manifest's fields.

``python -m tests.data.recorded`` writes `PLACE`, ``test_recorded.py`` compares with it.
"""

import csv
import gzip
import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.store import SETS, SPLITS, load_set
from tests.fakes import character_tokenizer

PLACE = Path(__file__).with_name("recorded.json")
SHARED = (Path(__file__).parents[2] / "../shared/data").resolve()
Row = dict[str, Any]


def _rows(count: int = 12, start: int = 0) -> list[Row]:
    return [
        {"prompt": f"Question {i}?", "chosen": f" A good answer {i}.", "rejected": f" Bad {i % 3}."}
        for i in range(start, start + count)
    ]


def _chat(row: Row, *, roles: bool = True) -> Row:
    """A pair as two whole conversations, OpenAI's form or ShareGPT's."""
    def turn(role: str, text: str) -> Row:
        if roles:
            return {"role": role, "content": text}
        return {"from": {"user": "human", "assistant": "gpt"}[role], "value": text}

    return {
        side: [turn("user", row["prompt"]), turn("assistant", row[side])]
        for side in ("chosen", "rejected")
    }


def _hh(row: Row) -> Row:
    turns = f"\n\nHuman: {row['prompt']}\n\nAssistant:"
    return {side: turns + row[side] for side in ("chosen", "rejected")}


def _tldr(row: Row) -> Row:
    post = "" if row["prompt"] == "Question 3?" else row["prompt"]
    return {
        "info": {"post": post}, "choice": 1,
        "summaries": [{"text": row["rejected"]}, {"text": row["chosen"]}],
    }


def _ultrafeedback(row: Row) -> Row:
    return _chat(row) | {"prompt": row["prompt"], "score_chosen": 8.0, "score_rejected": 5.5}


def _helpsteer(row: Row) -> list[Row]:
    return [
        {"prompt": row["prompt"], "response": row[side], "helpfulness": score}
        for side, score in (("chosen", 4), ("rejected", 1))
    ]


def _llmbar(row: Row) -> Row:
    return {
        "input": row["prompt"], "output_1": row["chosen"], "output_2": row["rejected"], "label": 1,
    }


def _pandalm(row: Row) -> Row:
    votes = (0, 0, 0) if row["prompt"] == "Question 3?" else (2, 2, 1)
    return {
        "instruction": row["prompt"], "input": "", "response1": row["rejected"],
        "response2": row["chosen"], "cmp_key": "a_b", "motivation_app": "app",
    } | {f"annotator{number}": vote for number, vote in enumerate(votes, start=1)}


def _llamafactory(row: Row) -> Row:
    return {"conversations": [{"from": "human", "value": row["prompt"]}]} | {
        side: {"from": "gpt", "value": row[side]} for side in ("chosen", "rejected")
    }


def _graded(row: Row) -> Row:
    return {
        "question": row["prompt"], "solution": [row["chosen"], row["rejected"], "none"],
        "is_correct": [True, False, False],
    }


def _openmath(row: Row) -> Row:
    return {
        "question": row["prompt"], "correct": row["chosen"], "incorrect": row["rejected"],
    }


# Layout → source, and how a plain row is written in it.
LAYOUTS: dict[str, tuple[str, Callable[[Row], Row | list[Row]]]] = {
    "pairs": ("pairs", dict),
    "pairs implicit": ("pairs", _chat),
    "pairs sharegpt": ("pairs", lambda row: _chat(row, roles=False)),
    "pairs text": ("pairs", lambda row: {side: row["prompt"] + row[side]
                                         for side in ("chosen", "rejected")}),
    "pairs margin": ("pairs", lambda row: row | {"margin": 0.5, "subset": "s", "id": "same"}),
    "hh": ("hh", _hh),
    "tldr": ("tldr", _tldr),
    "tldr trl": ("tldr", lambda row: row | {"prompt": row["prompt"] + "\n\nTL;DR:"}),
    "ultrafeedback": ("ultrafeedback", _ultrafeedback),
    "helpsteer": ("helpsteer", _helpsteer),
    "judged llmbar": ("judged", _llmbar),
    "judged pandalm": ("judged", _pandalm),
    "judged llamafactory": ("judged", _llamafactory),
    "graded": ("graded", _graded),
    "openmath": ("openmath", _openmath),
}
ENDINGS = ("jsonl.gz", "json", "csv", "parquet", "arrow")
# Rows of the project's shared files: source, place under `SHARED`, options.
SHARED_SOURCES: dict[str, tuple[str, str, Row]] = {
    "hh": ("hh", "preference/hh_rlhf_harmless_base_test.jsonl.gz", {}),
    "llamafactory": ("pairs", "preference/llamafactory_dpo_en_demo.json.gz", {}),
    "pandalm": ("judged", "preference/pandalm_testset-v1.json.gz", {}),
    "llmbar": ("judged", "preference/llmbar", {}),
    "gsm8k": ("graded", "gsm8k/example_model_solutions.jsonl.gz", {}),
}


def write(path: Path, rows: list[Row]) -> str:
    """Rows in the form that the path's ending names."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(path)
    elif path.suffix == ".arrow":
        Dataset.from_list(rows).save_to_disk(path)
    else:
        path.write_text(text)
    return str(path)


def _laid_out(rows: list[Row], layout: Callable[[Row], Row | list[Row]]) -> list[Row]:
    found: list[Row] = []
    for row in rows:
        laid = layout(row)
        found += laid if isinstance(laid, list) else [laid]
    return found


def _source(name: str, path: str, **changes: Any) -> Row:
    return {"name": name, "path": path, **changes}


def own_cases(folder: Path) -> dict[str, Row]:
    """Settings of preparations whose files are made here."""
    folder.mkdir(parents=True, exist_ok=True)
    cases: dict[str, Row] = {"arithmetic": {
        "source": {"name": "arithmetic", "options": {"rows": 60}},
    }}
    for number, (name, (source, layout)) in enumerate(LAYOUTS.items()):
        path = write(folder / f"layout{number}.jsonl", _laid_out(_rows(), layout))
        cases[name] = {"source": _source(source, path)}
    for ending in ENDINGS:
        path = write(folder / f"form.{ending}", _rows())
        cases[f"pairs.{ending}"] = {"source": _source("pairs", path)}
    first = write(folder / "first.jsonl", [*_rows(20), *_rows(2)])
    second = write(folder / "second.jsonl", _rows(9, start=15))
    both = [_source("pairs", first, weight=2.0), _source("pairs", second)]
    for rule in (None, "weighted", "first_exhausted", "all_exhausted"):
        cases[f"blend {rule}"] = {"sources": both, "blend": rule, "drop_overlap": True}
    equal = [_source("pairs", first), _source("hh", cases["hh"]["source"]["path"])]
    cases["concatenate"] = {"sources": equal, "train_rows": 15, "test_rows": 2}
    cases["short"] = {"source": _source("pairs", first), "max_length": 31, "prefix_count": 3}
    cases["prefixes"] = {"source": _source("pairs", first), "prefix_start": 2, "prefix_count": 3,
                         "seed": 3}
    bad = [*_rows(9), {"prompt": "x"}, _rows(1)[0] | {"chosen": 3}]
    cases["drop"] = {
        "source": _source("pairs", write(folder / "bad.jsonl", bad)), "on_error": "drop",
    }
    return cases


def shared_cases(folder: Path) -> dict[str, Row]:
    """Settings of preparations of the project's shared rows, few of each."""
    cases = {}
    for name, (source, place, options) in SHARED_SOURCES.items():
        cases[name] = {
            "source": _source(source, str(SHARED / place), options=options),
            "train_rows": 40, "test_rows": 10, "max_length": 4000, "prefix_count": 5,
        }
    return cases


def run(case: Row, out: Path) -> Row:
    """Prepare, and say what came out."""
    values = {"test_fraction": 0.25, "num_proc": 1, **case}
    one = values.get("source")
    arithmetic = isinstance(one, dict) and one["name"] == "arithmetic"
    tokenizer = build_tokenizer() if arithmetic else character_tokenizer()
    manifest = prepare(DataConfig.model_validate(values), tokenizer, out)
    stable = manifest.model_dump(mode="json", include={
        "fingerprint", "counts", "read", "repeated", "dropped", "template", "template_hash",
    })
    stable["notes"] = [re.sub(r"/\S*/", "", note) for note in manifest.notes]
    return stable | {"sets": {
        f"{split}/{name}": _digest(load_set(out, split, name)) for split in SPLITS for name in SETS
    }}


def _digest(rows: Any) -> str:
    content = json.dumps([list(rows.column_names), *rows.to_list()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def main() -> None:
    """Write all results down."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        found = {
            kind: {
                case: run(settings, root / f"{kind}{number}")
                for number, (case, settings) in enumerate(make(root / "files").items())
            }
            for kind, make in (("own", own_cases), ("shared", shared_cases))
        }
    PLACE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
