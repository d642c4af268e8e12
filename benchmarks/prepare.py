"""Preparing pairs from a file: `prepare` against TRL's own tokenising of the same rows.

Each side runs in a separate process. Timed without imports: from the JSONL file to token ids on
disk, on two processes. Where PREPARE_PARTS names a folder, each measurement is kept there, and an
interrupted run goes on from it.
"""

import gzip
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import shapes
from benchmarks.harness import Row, alone, in_turn, spread
from benchmarks.shapes import HH_ROWS, TOKENIZER
from rewardsteer.outputs import read_json, write_json

PROCESSES = 2
MAX_LENGTH = 2048
# Prepares a file with a tokenizer into a folder; returns the number of rows read.
Prepared = Callable[[Path, Any, Path], int]
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Sizes:
    """What the table measures.

    Attributes:
        counts: ``(rows of the file, runs of both sides)``.
        alone: ``(shape, rows)`` of larger files that only ours is measured on.
        prompt, response: lengths of generated texts in words, drawn from ``words`` different ones.
        shapes: ``generated`` and ``hh`` (real rows, repeated with a number to tell them apart).
    """

    counts: tuple[tuple[int, int], ...]
    alone: tuple[tuple[str, int], ...]
    prompt: int
    response: int
    words: int
    shapes: tuple[str, ...]


SIZES = Sizes(
    counts=((10_000, 3),), alone=(("generated", 200_000), ("hh", 200_000)),
    prompt=150, response=80, words=4000, shapes=("generated", "hh"),
)
SETUP = (
    f"{PROCESSES} processes, from a JSONL file to token ids on disk, without imports; rows over "
    f"{MAX_LENGTH} tokens are dropped. Generated: prompts of {SIZES.prompt} and responses of "
    f"{SIZES.response} words, {SIZES.words:,} different ones, BPE of 8,000 tokens. HH: 2,312 real "
    "rows, repeated with a different number in each copy, GPT-NeoX tokenizer; few words are new "
    "after the first copy, which favours our cache of tokenized pieces. Ours also writes the "
    "partial and the SFT set and a held-out split. CPU: user and system time of all processes. "
    "Memory: peak resident set of the parent and of its largest worker; pages that they share "
    "count in both. Load: load average of the machine, which others also used, at the start of the "
    "measurement (median over runs)."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Pairs per second and peak memory by shape and number of rows."""
    rows = []
    parts = os.environ.get("PREPARE_PARTS")
    with tempfile.TemporaryDirectory() as folder:
        for shape in filter(_there, sizes.shapes):
            for count, runs in sizes.counts:
                case = Case(shape, count, Path(folder), Path(parts) if parts else None, sizes)
                rows += case.compared(runs)
                case.file.unlink(missing_ok=True)
        for shape, count in (one for one in sizes.alone if _there(one[0])):
            case = Case(shape, count, Path(folder), Path(parts) if parts else None, sizes)
            rows += case.ours_alone()
            case.file.unlink(missing_ok=True)
    return rows


def _there(shape: str) -> bool:
    return shape != "hh" or all((shapes.DATA / name).exists() for name in (HH_ROWS.file, TOKENIZER))


class Case:
    """A file of rows, and both sides' measurements of it."""

    def __init__(
        self, shape: str, count: int, folder: Path, parts: Path | None, sizes: Sizes
    ) -> None:
        self.shape, self.count, self.parts, self.sizes = shape, count, parts, sizes
        self.file = folder / f"{shape}-{count}.jsonl"
        self.name = f"{'HH' if shape == 'hh' else shape} rows, {count:,}"

    def compared(self, runs: int) -> list[Row]:
        """Rows of rates and of memory, ours against TRL's."""
        done: dict[str, list[Row]] = {"ours": [], "trl": []}

        def side(name: str) -> float:
            done[name].append(self._measured(name, len(done[name])))
            return float(done[name][-1]["seconds"])

        seconds = in_turn([lambda: side("ours"), lambda: side("trl")], runs)
        ours, trl = done["ours"], done["trl"]
        rate, other = self._rate(ours), self._rate(trl)
        ratios = spread([second / first for first, second in seconds])
        rows = [{
            "case": self.name, "ours": rate, "other": other, **ratios, "unit": "pairs/s",
            "pairs/CPU s, ours": self._rate(ours, "cpu"),
            "pairs/CPU s, TRL": self._rate(trl, "cpu"),
            "load": _median(ours + trl, "load"),
        }]
        for what in ("parent", "worker"):
            mine, theirs = _median(ours, what), _median(trl, what)
            rows.append({
                "case": f"peak memory, {what}, {self.name}", "ours": mine, "other": theirs,
                "ratio": theirs / max(mine, 1.0), "unit": "MiB",
            })
        return rows

    def ours_alone(self) -> list[Row]:
        """Rows of ours alone, for files on which TRL takes too long."""
        done = [self._measured("ours", 0)]
        rows: list[Row] = [{
            "case": self.name, "ours": self._rate(done), "unit": "pairs/s",
            "pairs/CPU s, ours": self._rate(done, "cpu"), "load": _median(done, "load"),
        }]
        return rows + [
            {"case": f"peak memory, {what}, {self.name}", "ours": _median(done, what),
             "unit": "MiB"}
            for what in ("parent", "worker")
        ]

    def _measured(self, side: str, run: int) -> Row:
        kept = self.parts / f"{self.shape}-{self.count}-{side}-{run}.json" if self.parts else None
        if kept is not None and kept.exists():
            found: Row = read_json(kept)
            return found
        if not self.file.exists():
            write_rows(self.file, self.shape, self.count, self.sizes)
        found = alone("benchmarks.prepare", side, self.file)
        if found["read"] != self.count:
            raise RuntimeError(f"{side} processed {found['read']} of {self.count} rows.")
        if kept is not None:
            write_json(kept, found)
        return found

    def _rate(self, done: list[Row], of: str = "seconds") -> float:
        return self.count / _median(done, of)


def _median(done: list[Row], name: str) -> float:
    return float(statistics.median(one[name] for one in done))


def write_rows(file: Path, shape: str, count: int, sizes: Sizes) -> None:
    """Write a file of different pairs, and their tokenizer beside it."""
    if shape == "hh":
        rows = _real(count)
        tokenizer = gzip.decompress((shapes.DATA / TOKENIZER).read_bytes()).decode()
    else:
        rows = _generated(count, sizes)
        tokenizer = _trained(sizes)
    file.with_suffix(".tokenizer").write_text(tokenizer)
    with file.open("w") as stream:
        for row in rows:
            stream.write(json.dumps(row) + "\n")


def _real(count: int) -> Iterator[Row]:
    with gzip.open(shapes.DATA / HH_ROWS.file, "rt") as stream:
        talks = [json.loads(line) for line in stream]
    for number in range(count):
        talk = talks[number % len(talks)]
        yield {
            name: talk[name].replace("Human:", f"Human: ({number})", 1)
            for name in ("chosen", "rejected")
        }


def _words(rng: random.Random, sizes: Sizes) -> list[str]:
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    return ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(sizes.words)]


def _generated(count: int, sizes: Sizes) -> Iterator[Row]:
    rng = random.Random(0)
    words = _words(rng, sizes)
    for number in range(count):
        prompt = " ".join(rng.choices(words, k=sizes.prompt))
        chosen, rejected = (" ".join(rng.choices(words, k=sizes.response)) for _ in range(2))
        # A common beginning of the two responses would count as part of the prompt.
        yield {
            "prompt": f"{number} {prompt}", "chosen": f" {chosen}", "rejected": f" {rejected}"
        }


def _trained(sizes: Sizes) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = random.Random(0)
    words = _words(rng, sizes)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [" ".join(rng.choices(words, k=200)) for _ in range(400)],
        trainers.BpeTrainer(
            vocab_size=8000, special_tokens=["<|endoftext|>", "<|padding|>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return str(tokenizer.to_str())


def measure(side: str, file: str) -> None:
    """Prepare a file once; print seconds, CPU seconds and peak memory in MiB."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(file).with_suffix(".tokenizer")), eos_token="<|endoftext|>",
        pad_token="<|padding|>",
    )
    load = os.getloadavg()[0]
    prepared = {"ours": _ours, "trl": _trl}[side]()
    with tempfile.TemporaryDirectory(dir=Path(file).parent) as folder:
        began, used = time.perf_counter(), _cpu()
        read = prepared(Path(file), tokenizer, Path(folder))
        seconds, cpu = time.perf_counter() - began, _cpu() - used
    print(json.dumps({
        "read": read, "seconds": seconds, "cpu": cpu, "parent": _peak(),
        "worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10, "load": load,
    }))


def _ours() -> Prepared:
    from rewardsteer.data.config import DataConfig, SourceConfig
    from rewardsteer.data.prepare import prepare

    def prepared(file: Path, tokenizer: Any, folder: Path) -> int:
        config = DataConfig(
            sources=[SourceConfig(name="pairs", path=str(file))], max_length=MAX_LENGTH,
            num_proc=PROCESSES,
        )
        return prepare(config, tokenizer, folder / "out").read

    return prepared


def _trl() -> Prepared:
    from datasets import load_dataset
    from trl import RewardConfig, RewardTrainer

    def prepared(file: Path, tokenizer: Any, folder: Path) -> int:
        rows = load_dataset(
            "json", data_files=str(file), split="train", cache_dir=str(folder / "cache")
        )
        settings = RewardConfig(
            output_dir=str(folder / "out"), dataset_num_proc=PROCESSES, max_length=MAX_LENGTH,
            use_cpu=True, bf16=False, report_to="none",
        )
        # The dataset part of the trainer's constructor, which needs no model.
        trainer = object.__new__(RewardTrainer)
        trainer._prepare_dataset(rows, tokenizer, settings, "train")
        return len(rows)

    return prepared


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak() -> float:
    # The peak in getrusage is at least that of the parent process.
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = next(one for one in _STATUS.read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2])
