"""The demo's reward models, trained on as many processors as there are."""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rewardsteer.data.sets import Row
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.reward_models import Plan, train_reward_model
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import require_tokens
from rewardsteer.processors import processors
from rewardsteer.quiet import keep_log, quiet_libraries

logger = logging.getLogger(__name__)


class Task(NamedTuple):
    """What the trainings share.

    Attributes:
        policy: folder from which all start.
        tokenizer: the policy's.
        rows: pairs.
        config: of the demo.
        out: each model goes to ``OUT/reward_models/NAME``.
    """

    policy: Path
    tokenizer: Any
    rows: list[Row]
    config: DemoConfig
    out: Path

    def train(self, plan: Plan, *, progress: bool, announce: Callable[[str], None]) -> Scorer:
        """Train one."""
        return train_reward_model(
            plan, self.policy, self.tokenizer, self.rows, self.config,
            self.out / "reward_models" / plan.name, progress=progress, announce=announce,
        )


def train_all(
    plans: Sequence[Plan], task: Task, *, progress: bool, announce: Callable[[str], None]
) -> dict[str, Scorer]:
    """Train the reward models of some plans; name → scorer.

    They have nothing to do with each other, and one is too small for more than one processor.
    """
    count = min(task.config.num_proc or processors(), len(plans))
    if count == 1:
        return {
            plan.name: task.train(plan, progress=progress, announce=announce) for plan in plans
        }
    announce(f"training {len(plans)} reward models, {count} at a time")
    threads = max(1, torch.get_num_threads() // count)
    # Not forked: this process has threads. Leaving the block ends the trainings.
    context = multiprocessing.get_context("spawn")
    with context.Pool(count, initializer=_begin, initargs=(task, threads)) as pool:
        for name in pool.imap_unordered(_train, plans):
            announce(f"  {name}")
    places = {plan.name: task.out / "reward_models" / plan.name / "model" for plan in plans}
    return {
        name: require_tokens(load_scorer(place), "the demo") for name, place in places.items()
    }


_task: Task | None = None  # of a process that trains


def _begin(task: Task, threads: int) -> None:
    global _task
    # An interrupt is the first process's to answer; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_libraries(logging.WARNING)
    keep_log(task.out)
    torch.set_num_threads(threads)
    _task = task


def _train(plan: Plan) -> str:
    assert _task is not None, "begun"
    _task.train(plan, progress=False, announce=logger.info)
    return plan.name
