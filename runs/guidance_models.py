"""The guides of arithmetic_guidance.py: reward models like those of the demo, one trained on
outcomes, and students distilled from the teacher."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from guidance_students import distil_all

from rewardsteer.data.tokenize import encode_rows
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.reward_models import Phase, Plan, plans, train_reward_model
from rewardsteer.demo.world import (
    TEMPLATE,
    Row,
    Samples,
    draw_questions,
    longest_solution,
    make_pairs,
)
from rewardsteer.distillation.config import CandidateConfig, SamplingConfig
from rewardsteer.models.checkpoint import CARD
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.training.config import TermConfig
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig

TEACHER = "pargs"
# Backups of the maximum constraint, all with a zero-initialised head. The temperature of the soft
# one is that of a guide with weight 2.
BACKUPS: dict[str, dict[str, Any]] = {
    "max": {},
    "policy_soft": {"backup": "policy_soft", "temperature": 0.5},
    "policy_mean": {"backup": "policy_mean"},
    "policy_top_k": {"backup": "policy_top_k", "top_k": 3},
}
# Student → its head, and whether the backbone is trained with it.
STUDENTS: dict[str, tuple[dict[str, Any], bool]] = {
    "distilled full": ({}, True),
    "distilled rank 4": ({"layers": "low_rank", "rank": 4}, True),
    "distilled rank 16": ({"layers": "low_rank", "rank": 16}, True),
    "distilled embedding": ({"layers": "embedding", "rank": 16}, True),
    "policy states rank 16": ({"layers": "low_rank", "rank": 16}, False),
}
# Trained on labelled samples; an update has about as many as other models have responses.
OUTCOME = "outcome"
# Guide → decoding method; all others are vocabulary heads for farma.
METHODS = {"pargs": "pargs", "args": "args", OUTCOME: "q_sharp"}
BATCH = 32


def reward_model_plans(config: DemoConfig) -> list[Plan]:
    """Scalar reward models and vocabulary heads, all trained for the same number of updates."""
    known = {plan.name: plan for plan in plans(config)}
    before, _, after = known["farma"].phases
    pairs = before.terms
    zeros = HeadConfig(kind="vocabulary", init="zeros")
    found = [
        replace(known["plain"], name="args"), known["pargs"], known["farma"],
        replace(known["farma_untrained"], name="untrained"),
        Plan("zeros pairs alone", zeros, (Phase(pairs, config.reward_steps),)),
        Plan(OUTCOME, zeros, (Phase((TermConfig(name="outcome"),), config.reward_steps),)),
    ]
    for name, options in BACKUPS.items():
        term = TermConfig(name="max_constraint", options=options)
        middle = Phase((term,), config.constraint_steps)
        found.append(Plan(f"zeros {name}", zeros, (before, middle, after)))
    return found


def labelled(samples: Samples, tokenizer: Any) -> list[Row]:
    """All samples of each question with their labels, as rows for training."""
    found: dict[str, Row] = {}
    encoded = encode_rows(samples.questions, samples.solutions, TEMPLATE, tokenizer)
    for question, coded, correct in zip(samples.questions, encoded, samples.correct, strict=True):
        row = found.setdefault(question, {
            "id": str(len(found)), "prompt_ids": coded.prompt_ids, "response_ids": [],
            "numbers": {"label": []},
        })
        row["response_ids"].append(coded.response_ids)
        row["numbers"]["label"].append(float(correct))
    return list(found.values())


def train_all(
    config: DemoConfig, place: Path, tokenizer: Any, samples: Samples, out: Path,
    only: Sequence[str] = (),
) -> dict[str, Path]:
    """Train the missing guides, or the missing ones of ``only``; returns guide → folder."""
    folders, pairs = {}, make_pairs(samples, tokenizer, config)
    for plan in reward_model_plans(config):
        if only and plan.name not in only:
            continue
        whole = plan.name == OUTCOME
        folders[plan.name] = trained(
            plan, config, place, tokenizer, labelled(samples, tokenizer) if whole else pairs, out,
            batch_size=2 * BATCH // config.samples if whole else BATCH,
        )
    return folders


def trained(
    plan: Plan, config: DemoConfig, place: Path, tokenizer: Any, rows: list[Row], out: Path, *,
    batch_size: int = BATCH,
) -> Path:
    """The model's folder in ``out``; a missing model is trained from the policy at ``place``."""
    folder = out / plan.name.replace(" ", "-")
    if (folder / "model" / CARD).exists():
        return folder / "model"
    return train_reward_model(
        plan, place, tokenizer, rows, config, folder, progress=False, announce=print,
        batch_size=batch_size,
    )


def distil_students(
    config: DemoConfig, place: Path, teacher: Path, out: Path, prompts: int, epochs: int,
    only: Sequence[str] = (),
) -> tuple[dict[str, Path], Path]:
    """Distil the missing students, or the missing ones of ``only``; returns student → folder, and
    the folder of the records that all are trained on."""
    students = {
        name: {"head": {"kind": "vocabulary", **head}, "freeze_backbone": not whole}
        for name, (head, whole) in STUDENTS.items() if not only or name in only
    }
    return distil_all(
        draw_questions(prompts, config, "distil"), students, out,
        policy=str(place), teacher=str(teacher), loss={"weight": 2.0}, seed=config.seed,
        sampling=SamplingConfig(
            per_prompt=4, max_new_tokens=longest_solution(config), batch_size=200
        ),
        candidates=CandidateConfig(top_k=13, unseen=0, batch_size=200),
        optimiser=OptimiserConfig(
            learning_rate=2e-3, per_device_train_batch_size=64, num_train_epochs=epochs,
            lr_scheduler_type="cosine", warmup_steps=20,
        ),
        log=LogConfig(logging_steps=25, progress=False, print_logs=False),
    )
