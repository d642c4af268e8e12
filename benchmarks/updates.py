"""Whole updates of a reward model (read, forward, backward, optimiser), by `fit` and by TRL."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer import DEFAULT_CALLBACKS

from benchmarks.backbones import Backbone, precision
from benchmarks.harness import synchronise
from rewardsteer.data.sets import TokenizedPair
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training.arguments import training_arguments
from rewardsteer.training.config import TermConfig
from rewardsteer.training.fit import fit
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig

BRADLEY_TERRY = TermConfig(name="bradley_terry")
# Training settings that have the same names in TRL.
_SAME = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps",
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "adam_beta1",
    "adam_beta2", "max_grad_norm", "bf16", "fp16", "gradient_checkpointing", "save_strategy",
    "logging_steps", "disable_tqdm", "use_cpu", "seed", "data_seed", "dataloader_num_workers",
    "dataloader_pin_memory",
)


@dataclass(frozen=True)
class Training:
    """A short training: one epoch over some pairs.

    Attributes:
        backbone: weights to start from, the same at each call.
        pairs: comparisons; their number is a multiple of ``batch``.
        batch: comparisons per update.
    """

    backbone: Backbone
    pairs: Sequence[TokenizedPair]
    batch: int

    @property
    def timed_pairs(self) -> int:
        """Number of pairs in the timed updates, which are all but the first."""
        return len(self.pairs) - self.batch

    @property
    def pair_tokens(self) -> float:
        """Mean tokens per pair as two rows: the prompt counts twice, padding not at all."""
        total = sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids)
                    for p in self.pairs)
        return total / len(self.pairs)

    @property
    def optimiser(self) -> OptimiserConfig:
        """AdamW, one update per batch, batches drawn at random."""
        return OptimiserConfig(
            learning_rate=1e-5, per_device_train_batch_size=self.batch,
            lr_scheduler_type="constant", precision=precision(),
        )


@dataclass
class Clock(TrainerCallback):
    """A callback that records when each update ended, and its loss."""

    ends: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds from the end of the first update, which includes setup, to that of the last."""
        return self.ends[-1] - self.ends[0]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer."""
        synchronise()
        self.ends.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Called by the Trainer."""
        if "loss" in (logs or {}):
            self.losses.append(logs["loss"])


@contextlib.contextmanager
def _watched() -> Iterator[tuple[Clock, Path]]:
    """A clock on every Trainer created inside the context, and a temporary folder."""
    clock = Clock()
    DEFAULT_CALLBACKS.append(clock)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield clock, Path(folder)
    finally:
        DEFAULT_CALLBACKS.remove(clock)


_LOG = LogConfig(logging_steps=1, progress=False, print_logs=False)


def by_fit(training: Training, terms: Sequence[TermConfig] = (BRADLEY_TERRY,)) -> Clock:
    """Train with `rewardsteer.training.fit`."""
    model = RewardModel(training.backbone.classifier(), HeadConfig())
    rows = Dataset.from_list([pair._asdict() for pair in training.pairs])
    with _watched() as (clock, folder):
        fit(
            model, build_tokenizer(), build_objective(terms), rows, folder, folder / "log.jsonl",
            optimiser=training.optimiser, log=_LOG,
        )
    return clock


def by_trl(training: Training) -> Clock:
    """Train with TRL's RewardTrainer: same weights, rows, order, optimiser and precision."""
    from trl import RewardConfig, RewardTrainer

    rows = Dataset.from_list([
        {"chosen_ids": [*p.prompt_ids, *p.chosen_ids],
         "rejected_ids": [*p.prompt_ids, *p.rejected_ids]}
        for p in training.pairs
    ])
    with _watched() as (clock, folder):
        ours: TrainingArguments = training_arguments(
            folder, training.optimiser, _LOG, 0, evaluate=False
        )
        trainer = RewardTrainer(
            model=training.backbone.classifier(),
            args=RewardConfig(
                str(folder), report_to="none", max_length=None,
                **{name: getattr(ours, name) for name in _SAME},
            ),
            train_dataset=rows,
            processing_class=build_tokenizer(),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock


def check_same_loss(ours: Clock, other: Clock) -> None:
    """Raise `RuntimeError` unless two training runs have the same first loss."""
    allowed = 1e-4 if precision() == "fp32" else 2e-2
    if abs(ours.losses[0] - other.losses[0]) > allowed:
        raise RuntimeError(
            f"The first losses differ: ours {ours.losses[0]}, the other's {other.losses[0]}; the "
            "two sides do not compute the same and cannot be compared."
        )
