"""The demo's reward models, trained on as many processors as there are."""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from rewardsteer.data.sets import Row
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.reward_models import Plan, train_reward_model
from rewardsteer.errors import RewardsteerError
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

    def train(self, plan: Plan, *, progress: bool, announce: Callable[[str], None]) -> Path:
        """Train one; returns its folder."""
        return train_reward_model(
            plan, self.policy, self.tokenizer, self.rows, self.config,
            self.out / "reward_models" / plan.name, progress=progress, announce=announce,
        )


def train_all(
    plans: Sequence[Plan], task: Task, *, progress: bool, announce: Callable[[str], None]
) -> dict[str, Scorer]:
    """Train the reward models of some plans; name → scorer."""
    count = min(task.config.num_proc or processors(), len(plans))
    if count == 1:
        for plan in plans:
            task.train(plan, progress=progress, announce=announce)
    else:
        _train_at_once(plans, task, count, announce)
    places = {plan.name: task.out / "reward_models" / plan.name / "model" for plan in plans}
    return {
        name: require_tokens(load_scorer(place), "the demo") for name, place in places.items()
    }


def _train_at_once(
    plans: Sequence[Plan], task: Task, count: int, announce: Callable[[str], None]
) -> None:
    """They have nothing to do with each other, and one is too small for more than one processor."""
    announce(f"training {len(plans)} reward models, {count} at a time")
    threads = max(1, torch.get_num_threads() // count)
    # Not forked: this process has threads.
    context = multiprocessing.get_context("spawn")
    running: dict[Any, Any] = {}
    try:
        with _no_interrupts():
            for share in (plans[number::count] for number in range(count)):
                reader, writer = context.Pipe(duplex=False)
                running[reader] = context.Process(
                    target=_train, args=(task, share, threads, writer), daemon=True
                )
                running[reader].start()
                writer.close()
        for name in _told(dict(running)):
            announce(f"  {name}")
    finally:
        for process in running.values():
            process.terminate()


def _told(running: dict[Any, Any]) -> Iterator[str]:
    """Names of models as they are trained.

    Raises:
        RewardsteerError: a training failed, or its process was killed.
    """
    while running:
        for reader in cast(list[Connection], wait(list(running))):
            try:
                told = reader.recv()
            except EOFError:
                process = running.pop(reader)
                process.join()
                if process.exitcode:
                    raise RewardsteerError(
                        f"A process that trained reward models ended with {process.exitcode}; with "
                        "num_proc=1 they are trained one after the other, in less memory."
                    ) from None
                continue
            if isinstance(told, RewardsteerError):
                raise told
            yield told


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes that start now get none: the first process answers them, and ends the others."""
    resource_tracker.ensure_running()  # Its start would let interrupts through again.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _train(task: Task, plans: Sequence[Plan], threads: int, told: Any) -> None:
    quiet_libraries(logging.WARNING)
    keep_log(task.out)
    torch.set_num_threads(threads)
    try:
        for plan in plans:
            task.train(plan, progress=False, announce=logger.info)
            told.send(plan.name)
    except RewardsteerError as error:
        told.send(error)
