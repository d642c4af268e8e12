"""Which features work with which architecture, measured on tiny random models.

    python -m benchmarks.architectures [NAME …]

writes ``benchmarks/results/architectures.json`` and ``docs/architectures.md``.
"""

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.tiny import ARCHITECTURES, save_tiny
from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.batching import left_pad
from rewardsteer.models.capabilities import supports_prefix_cache
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.packing.choose import why_not_packable
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.bradley_terry import bradley_terry
from tests.fakes import character_tokenizer
from tests.objectives.test_objectives import rows

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks/results/architectures.json", ROOT / "docs/architectures.md"
COLUMNS = ("train scalar", "train vocabulary", "packed", "cached decode", "plain transformers")
IDS = torch.tensor([[5, 11, 23, 7, 2, 13, 40], [31, 3, 37, 41, 43, 17, 9]])

_TEXT = """# Architectures

The table shows which decoder architectures can be trained and used for guidance: look up the
`model_type` of the model's `config.json`. It was measured with transformers {version} on tiny
random models (two layers, width 32, float32, a CPU) by `python -m benchmarks.architectures`. The
numbers are in `benchmarks/results/architectures.json`.

- **train scalar**, **train vocabulary**: a Bradley-Terry loss decreases over three steps.
- **packed**: `yes` if sequences that share a prompt can be packed into one sequence. A capability
  check finds this out. In other architectures they are padded.
- **cached decode**: `cache` if a decoding step processes one new token. `whole` if every step
  processes complete sequences (recurrent layers). In both cases, answers in a batch of sequences
  of unequal length equal the answers to each one alone.
- **plain transformers**: the heads for which transformers computes the same rewards from the
  saved folder. It is `both`, or `vocabulary` for architectures without a classifier class in
  transformers. In that case the model card explains how to use the scalar head.

Some architectures scale their logits (Cohere, Granite, Falcon-H1, HyperCLOVA X, MiniCPM3). Here
the scale is part of the head's weights, so an untrained vocabulary head gives the policy's
logits. Others cap their logits (Gemma 2, Gemma 3n, Gemma 4, nanochat, VaultGemma,
RecurrentGemma). Rewards are the logits before the cap. Gemma 2 and VaultGemma also cap attention
scores: they are loaded with `attn_implementation` `eager`, since transformers' default, `sdpa`,
leaves this cap out. Training from encoder classifiers (BERT, RoBERTa, DeBERTa) is refused.

"""


def measure(name: str) -> dict[str, Any]:
    """An architecture's result by feature; of a feature that fails, the error as text."""
    with tempfile.TemporaryDirectory() as folder:
        base, cells = save_tiny(Path(folder) / "base", name), {}
        for head in ("scalar", "vocabulary"):
            cells[f"train {head}"] = _cell(lambda kind=head: _train(base, kind))
        cells["packed"] = _cell(lambda: _packed(base))
        cells["cached decode"] = _cell(lambda: _decode(base))
        cells["plain transformers"] = _cell(lambda: _plain(base, Path(folder)))
    return cells


def _cell(what: Callable[[], Any]) -> Any:
    try:
        return what()
    except Exception as error:  # a failure is a result here
        return f"{type(error).__name__}: {str(error)[:120]}"


def _train(base: Path, head: str) -> list[float]:
    torch.manual_seed(0)
    model = RewardModel.from_base(base, HeadConfig(kind=head)).train()
    batch = to_batch(PairCollator(2)(rows(seed=3, count=3)))
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(4):
        loss = bradley_terry(model(batch), batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(round(loss.item(), 4))
    return losses


def _packed(base: Path) -> str:
    refusal = why_not_packable(RewardModel.from_base(base, HeadConfig()).eval(), 20)
    return "yes" if refusal is None else refusal


@torch.no_grad()
def _decode(base: Path) -> dict[str, Any]:
    policy = AutoModelForCausalLM.from_pretrained(base).eval()
    texts, reader, worst = [[5, 11, 23, 7, 9], [31, 3]], PrefixReader(policy), 0.0
    for token in (13, 40, 17):
        found = reader.step(*left_pad(texts))
        for row, answer in zip(texts, found, strict=True):
            expected = policy(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
            worst = max(worst, float((answer - expected).norm() / expected.norm()))
        texts = [[*row, token] for row in texts]
    return {"way": "cache" if supports_prefix_cache(policy) else "whole", "difference": worst}


@torch.no_grad()
def _plain(base: Path, folder: Path) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for head in ("scalar", "vocabulary"):
        model = RewardModel.from_base(base, HeadConfig(kind=head)).eval()
        model.save_pretrained(
            folder / head, character_tokenizer(), CheckpointCard(head=HeadConfig(kind=head))
        )
        states = model.hidden_states(IDS, None)
        if head == "scalar":
            named = json.loads((folder / head / "config.json").read_text())["architectures"][0]
            if not hasattr(transformers, named):
                found[head] = None
                continue
            plain = AutoModelForSequenceClassification.from_pretrained(folder / head).eval()
            ours, theirs = model.head.values(states)[:, -1], plain(input_ids=IDS).logits[:, 0]
        else:
            plain = AutoModelForCausalLM.from_pretrained(folder / head).eval()
            ours, theirs = model.head.next_token(states), plain(input_ids=IDS).logits
        found[head] = float((ours - theirs).norm() / ours.norm())
    return found


def shown(column: str, cell: Any) -> str:
    """The text of a result in its column of the table."""
    if column.startswith("train"):
        return "yes" if isinstance(cell, list) and cell[-1] < cell[0] else f"no: {cell}"
    if column == "packed":
        return "yes" if cell == "yes" else "padded"
    if not isinstance(cell, dict):
        return f"no: {cell}"
    if column == "cached decode":
        return str(cell["way"]) if cell["difference"] < 1e-4 else f"no: {cell}"
    wrong = any(value is not None and not value < 1e-4 for value in cell.values())
    if wrong:
        return f"no: {cell}"
    return "vocabulary" if cell["scalar"] is None else "both"


def page(results: dict[str, dict[str, Any]], version: str) -> str:
    """The text of ``docs/architectures.md``."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(shown(column, cells[column]) for column in COLUMNS)} |"
        for name, cells in results.items()
    ]
    return _TEXT.format(version=version) + "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Measure all architectures and write both files; named ones are only printed."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    results = {}
    for name in names or ARCHITECTURES:
        results[name] = measure(name)
        print(name, *(shown(column, results[name][column]) for column in COLUMNS), sep=" | ",
              flush=True)
    if not names:
        written = {"transformers": transformers.__version__, "architectures": results}
        RESULT.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(results, transformers.__version__), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
