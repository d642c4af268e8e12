"""What is fuzzed: every target takes bytes and returns, or raises one of our errors.

Anything else that comes out is a finding. The first byte chooses among the forms of a target, the
rest is what the file holds.
"""

import functools
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from rewardsteer.configuration import load_config
from rewardsteer.data.config import DataConfig
from rewardsteer.data.rows import arrow_schema, open_rows, shards
from rewardsteer.data.solutions import read_solutions
from rewardsteer.data.sources import SOURCES
from rewardsteer.errors import RewardsteerError
from rewardsteer.evaluation.benchmarks import load_problems
from rewardsteer.evaluation.correctness.scored_files import load_scored
from rewardsteer.goals.files import load_goals, read_npy
from rewardsteer.goals.goal_state import Provenance
from rewardsteer.models.kinds import load_scorer
from rewardsteer.training.config import TrainConfig

ENDINGS = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".csv.gz")
PROBLEMS = ("gsm8k", "math", "gsm-hard", "mawps", "asdiv", "algebra222", "svamp")
READ = ("graded", "helpsteer", "hh", "judged", "openmath", "pairs", "tldr", "ultrafeedback")
MODEL_FILES = (
    "config.json", "rewardsteer.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json", "value_head.safetensors", "goal_states.safetensors",
)


def readers(content: bytes) -> None:
    """Every data source, and what reads solutions, problems and rows to score."""
    form, content = _form(content)
    file = _file(f"train{ENDINGS[form % len(ENDINGS)]}", content)
    for name in READ:
        _refusing(lambda name=name: list(SOURCES.get(name)("train", path=str(file))))
    for name in PROBLEMS:
        _refusing(lambda name=name: load_problems(name, file))
    _refusing(lambda: list(read_solutions(file)))
    _refusing(lambda: load_scored(file))
    _refusing(lambda: _rows(file))


def _rows(file: Path) -> None:
    rows = open_rows(file, 2)
    found = [row for shard in range(shards(rows)) for row in rows.read(shard)]
    assert len(found) == rows.count, "every row once"
    for row in found:
        json.dumps(row, ensure_ascii=False).encode()
    arrow_schema(rows)


def settings(content: bytes) -> None:
    """YAML files and dotted overrides."""
    form, content = _form(content)
    kind = (TrainConfig, DataConfig)[form % 2]
    file = _file("settings.yaml", content)
    _refusing(lambda: load_config(kind, file))
    override = content.decode("utf-8", "replace")
    _refusing(lambda: load_config(kind, {}, [override]))
    _refusing(lambda: load_config(kind, {}, ["rounds=2", f"sources.0.path={override}"]))


def goals(content: bytes) -> None:
    """Goal states, ours and the published form."""
    form, content = _form(content)
    if form % 2:
        made = Provenance(kind="imported", model_fingerprint="")
        file = _file("goal.npy", content)
        _refusing(lambda: read_npy(file, "preferred", made))
    else:
        file = _file("goal_states.safetensors", content)
        _refusing(lambda: load_goals(file))


def checkpoints(content: bytes) -> None:
    """A reward model folder of which one file holds something else."""
    form, content = _form(content)
    name = MODEL_FILES[form % len(MODEL_FILES)]
    folder = _folder()
    model = model_files()
    for other, whole in model.items():
        (folder / other).write_bytes(content if other == name else whole)

    def load() -> None:
        scorer = load_scorer(folder)
        scorer.score(["What is 2+2?"], ["4"])

    _refusing(load)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "readers": readers, "settings": settings, "goals": goals, "checkpoints": checkpoints,
}


def seeds(target: str) -> Iterator[bytes]:
    """Good files of every form, from which fuzzing starts."""
    if target == "readers":
        rows = [{"prompt": "a\u00e9", "chosen": "b", "rejected": "c", "margin": 1.5}] * 2
        rows += [{"question": "q", "generation": "g \\boxed{2}", "is_correct": True, "answer": "2"}]
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        yield b"\x00" + text
        yield b"\x01" + json.dumps(rows).encode()
        yield b"\x02" + b'prompt,chosen,rejected\n"a,""b""",c,d\n'
        yield b"\x03" + _parquet(rows[:2])
        yield b"\x04" + gzip.compress(text)
        yield b'\x00{"question": "q", "completions": [{"text": "t", "is_correct": 1}]}\n'
        yield b'\x00{"prompt": [{"role": "user", "content": "c"}], "completion": "d"}\n'
    elif target == "settings":
        yield b"\x00base_model: x\nobjective: bradley_terry\noptimiser: {learning_rate: 1e-4}\n"
        yield b"\x01sources: [{name: pairs, path: x.jsonl}]\nmax_length: 20\n"
        yield b"\x00rounds=${optimiser.learning_rate}"
    elif target == "goals":
        made = Provenance(kind="mean", model_fingerprint="f").model_dump(mode="json")
        header = {"goals": json.dumps({"preferred": made})}
        yield b"\x00" + save({"preferred.vectors": torch.ones(1, 4)}, header)
        for array in (np.ones((1, 4), np.float32), np.ones(4, np.float16)):
            buffer = io.BytesIO()
            np.save(buffer, array)
            yield b"\x01" + buffer.getvalue()
    else:
        for number, name in enumerate(MODEL_FILES):
            if name in model_files():
                yield bytes([number]) + model_files()[name]


@functools.cache
def model_files() -> dict[str, bytes]:
    """The files of a small reward model with an MLP head and a goal."""
    from rewardsteer.goals.files import save_goals
    from rewardsteer.goals.goal_state import GoalState
    from rewardsteer.models.checkpoint import CheckpointCard
    from rewardsteer.models.heads.config import HeadConfig
    from rewardsteer.models.reward_model import RewardModel
    from tests.fakes import character_tokenizer, save_tiny

    folder = Path(tempfile.mkdtemp(prefix="fuzz-model-"))
    head = HeadConfig(kind="scalar", layers="mlp")
    torch.manual_seed(0)
    model = RewardModel.from_base(save_tiny(folder / "base"), head)
    card = CheckpointCard(head=head, objective="bradley_terry")
    model.save_pretrained(folder / "model", character_tokenizer(), card)
    made = Provenance(kind="mean", model_fingerprint="")
    save_goals(folder / "model", {"preferred": GoalState("preferred", torch.ones(1, 32), made)})
    return {path.name: path.read_bytes() for path in (folder / "model").iterdir()}


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def _file(name: str, content: bytes) -> Path:
    place = _folder() / name
    place.write_bytes(content)
    return place


def _form(content: bytes) -> tuple[int, bytes]:
    return (content[0], content[1:]) if content else (0, b"")


def _refusing(action: Callable[[], Any]) -> None:
    try:
        action()
    except RewardsteerError as error:
        if not str(error).strip():
            raise ValueError("an error has to say what is wrong") from error


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()
