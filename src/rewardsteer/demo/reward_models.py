"""The demo's reward models, all started from the policy's weights."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import set_seed

from rewardsteer.data.sets import Row
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.processes import Processes
from rewardsteer.demo.world import BATCH, TEMPLATE, optimiser
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import require_tokens
from rewardsteer.objectives.combine import build_objective
from rewardsteer.training.config import TermConfig
from rewardsteer.training.fit import fit
from rewardsteer.training.shared_config import LogConfig

LEARNING_RATE = 2e-3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A number of updates on a sum of objectives."""

    terms: tuple[TermConfig, ...]
    steps: int

    @property
    def name(self) -> str:
        """Objectives joined with ``+``."""
        return "+".join(term.name for term in self.terms)


@dataclass(frozen=True)
class Plan:
    """How a reward model is made.

    Attributes:
        name: its name in tables and file names.
        phases: its training phases, in order; without any it stays untrained.
    """

    name: str
    head: HeadConfig
    phases: tuple[Phase, ...]


def plans(config: DemoConfig) -> list[Plan]:
    """The reward models of the demo; all see the same number of pairs."""
    center = {"center_coefficient": config.center_coefficient}
    pairs = TermConfig(name="bradley_terry", options=center)
    prefixes = TermConfig(name="partial", options=center)
    constraint = TermConfig(name="max_constraint")
    # The published 0.05 is for long responses; on these short ones weights would hardly change.
    autoregressive = TermConfig(name="autoregressive", options={"beta": 1.0})
    contrast = TermConfig(name="goal_contrastive", weight=config.goal_weight)
    scalar, steps = HeadConfig(kind="scalar"), config.reward_steps
    # The published alternation: two rounds, of which the second ends after Bradley-Terry.
    rest = max(steps - config.constraint_steps, 2)
    farma = (
        Phase((pairs,), rest - rest // 2),
        Phase((constraint,), config.constraint_steps),
        Phase((pairs,), rest // 2),
    )
    return [
        Plan("plain", scalar, (Phase((pairs,), steps),)),
        Plan("goal", scalar, (Phase((pairs, contrast), steps),)),
        Plan("pargs", scalar, (Phase((prefixes,), steps),)),
        Plan(
            "genarm", HeadConfig(kind="vocabulary", init="lm_head"),
            (Phase((autoregressive,), steps),),
        ),
        Plan("farma", HeadConfig(kind="vocabulary", init="lm_head"), farma),
        Plan("farma_zeros", HeadConfig(kind="vocabulary", init="zeros"), farma),
        Plan("farma_untrained", HeadConfig(kind="vocabulary", init="lm_head"), ()),
    ]


def train_reward_model(
    plan: Plan, policy: Path, tokenizer: Any, rows: list[Row], config: DemoConfig, out: Path, *,
    progress: bool, announce: Callable[[str], None], batch_size: int = BATCH,
) -> Path:
    """Train one reward model; returns its saved folder."""
    set_seed(config.seed)
    model = RewardModel.from_base(policy, plan.head, attn_implementation="eager")
    objectives = [build_objective(phase.terms) for phase in plan.phases]
    if any(objective.backups for objective in objectives):
        model.set_policy(RewardModel.from_base(
            policy, HeadConfig(kind="vocabulary"), attn_implementation="eager"
        ))
    for index, (phase, objective) in enumerate(zip(plan.phases, objectives, strict=True)):
        announce(f"training {plan.name}: {phase.name}, {phase.steps} updates")
        fit(
            model, tokenizer, objective, rows, out / "phases" / f"{index + 1}",
            out / "metrics.jsonl",
            optimiser=optimiser(LEARNING_RATE, max_steps=phase.steps, batch_size=batch_size),
            log=LogConfig(logging_steps=25, progress=progress, print_logs=False),
            seed=config.seed + index,
            phase=f"{index + 1}-{phase.name}",
        )
    trained = "+".join(dict.fromkeys(phase.name for phase in plan.phases))
    card = CheckpointCard(
        head=plan.head, objective=trained, template=TEMPLATE.model_dump(mode="json"),
        base_model="policy", seed=config.seed,
    )
    model.save_pretrained(out / "model", tokenizer, card)
    return out / "model"


class Task(NamedTuple):
    """What all reward models of the demo are trained with.

    Attributes:
        policy: folder of the policy, whose weights all start from.
        tokenizer: the policy's tokenizer.
        rows: training pairs.
        config: the demo's settings.
        out: the demo's folder; see `place_of`.
    """

    policy: Path
    tokenizer: Any
    rows: list[Row]
    config: DemoConfig
    out: Path

    def train(self, plan: Plan, *, progress: bool, announce: Callable[[str], None]) -> None:
        train_reward_model(
            plan, self.policy, self.tokenizer, self.rows, self.config,
            place_of(plan.name, self.out).parent, progress=progress, announce=announce,
        )


def train_all(
    plans: Sequence[Plan], task: Task, processes: Processes | None, *, progress: bool,
    announce: Callable[[str], None],
) -> dict[str, Scorer]:
    """Train the reward models of some plans; returns name → scorer. They are independent and too
    small to use several processors, so they train side by side."""
    if processes is None:
        for plan in plans:
            task.train(plan, progress=progress, announce=announce)
    else:
        announce(f"training {len(plans)} reward models side by side")
        calls = {plan.name: (task, plan) for plan in plans}
        processes.run(_train, calls, lambda name: announce(f"  {name}"))
    return load_all([plan.name for plan in plans], task.out)


def place_of(name: str, out: Path) -> Path:
    """The folder of a reward model in the demo's folder."""
    return out / "reward_models" / name / "model"


def load_all(names: Sequence[str], out: Path) -> dict[str, Scorer]:
    """Load trained reward models; returns name → scorer."""
    return {
        name: require_tokens(load_scorer(place_of(name, out)), "the demo") for name in names
    }


def _train(task: Task, plan: Plan) -> None:
    task.train(plan, progress=False, announce=logger.info)
