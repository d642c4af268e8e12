"""Goal states from the last-token states of preferred responses, in constant memory.

Means need two running sums per goal. Clusters and nearest questions need the states themselves,
which are written to a file and read in slices. In both cases an interrupted run keeps its progress
and can be resumed.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rewardsteer.data.store import load_manifest, load_set
from rewardsteer.data.store_checks import check_template, check_tokenizer
from rewardsteer.errors import DataError
from rewardsteer.goals.config import GoalConfig
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.goals.spool import RunningMeans, StateStore, cluster
from rewardsteer.models.scorer import Scorer
from rewardsteer.quiet import quiet_calls

_CHUNK = 1024  # rows between two records of progress


@quiet_calls
def build_goals(
    scorer: Scorer, data: Path, config: GoalConfig, work: Path, *, resume: bool = False,
    announce: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, GoalState]:
    """Goals by name, from prepared comparisons.

    Args:
        scorer: the reward model.
        data: a folder of prepared data, written with the reward model's template.
        config: which goals.
        work: folder for the progress of an interrupted run; empty again at the end.
        resume: continue from that progress.
        announce: called with rows done and rows in all.

    Raises:
        MismatchError: the data was written with another template.
        DataError: no rows, or fewer than clusters.
    """
    manifest = load_manifest(data)
    check_template(manifest, scorer.template, data, scorer.name, scorer.tokenizer)
    check_tokenizer(manifest, scorer.tokenizer, data)
    rows = load_set(data, config.split, "full")
    total = min(len(rows), config.rows or len(rows))
    if total == 0:
        raise DataError(f"The {config.split} split of {data} holds no rows to take goals from.")
    if config.kind == "clusters" and total < config.clusters:
        raise DataError(
            f"{config.clusters} clusters need at least as many responses; {data} has {total}. "
            "Lower clusters or give more data."
        )
    task = f"{scorer.fingerprint}/{manifest.fingerprint}/{config.model_dump_json()}"
    sums = RunningMeans(work / "sums.safetensors", task, resume=resume)
    spool = None
    if config.kind in ("clusters", "nearest"):
        spool = StateStore(work / "states", scorer.hidden_size, rows=sums.rows)
    announce(sums.rows, total)
    for begin in range(sums.rows, total, _CHUNK):
        chunk = rows[begin : min(begin + _CHUNK, total)]
        names = [subset or config.name for subset in chunk["subset"]]
        if not config.by_subset:
            names = [config.name] * len(names)
        if spool is None:
            for side in ("chosen", "rejected") if config.kind == "contrast" else ("chosen",):
                for numbers, last, _ in _states(scorer, chunk, side, config, begin):
                    sums.add([f"{side}/{names[number]}" for number in numbers], last)
        else:
            for numbers, last, prompts in _states(scorer, chunk, "chosen", config, begin):
                spool.append([names[number] for number in numbers], last, prompts)
        sums.save(begin + len(names))
        announce(begin + len(names), total)
    provenance = Provenance(
        kind=config.kind, model_fingerprint=scorer.fingerprint,
        data_fingerprint=manifest.fingerprint, template=manifest.template,
        neighbours=config.neighbours,
    )
    goals = _from_sums(sums, provenance) if spool is None else _from_file(spool, config, provenance)
    sums.discard()
    if spool is not None:
        spool.discard()
    return goals


def mean_goal(
    scorer: Scorer, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]
) -> GoalState:
    """The mean last-token state of preferred responses that are in memory, as token ids."""
    total = torch.zeros(scorer.hidden_size, dtype=torch.float64)
    for read in scorer.read(prompt_ids, response_ids, batch_size=None, batch_tokens=8192):
        total += read.last_states.cpu().double().sum(0)
    provenance = Provenance(
        kind="mean", model_fingerprint=scorer.fingerprint, count=len(prompt_ids),
        template=scorer.template.model_dump(mode="json"),
    )
    return GoalState("preferred", (total / max(len(prompt_ids), 1)).float()[None], provenance)


def _states(
    scorer: Scorer, chunk: dict[str, list[Any]], side: str, config: GoalConfig, begin: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Row numbers within the chunk, last states ``[R, D]``, prompt states ``[R, D]``."""
    prompts, responses = chunk["prompt_ids"], chunk[f"{side}_ids"]
    for read in scorer.read(
        prompts, responses, batch_size=None, batch_tokens=config.batch_tokens, first_row=begin
    ):
        yield read.rows, read.last_states, read.prompt_states


def _from_sums(sums: RunningMeans, provenance: Provenance) -> dict[str, GoalState]:
    goals = {}
    means = sums.means()
    for label, (mean, count) in means.items():
        side, _, name = label.partition("/")
        if side != "chosen":
            continue
        if provenance.kind == "contrast":
            mean = mean - means[f"rejected/{name}"][0]
        made = provenance.model_copy(update={"count": count})
        goals[name] = GoalState(name, mean.float()[None], made)
    return goals


def _from_file(
    spool: StateStore, config: GoalConfig, provenance: Provenance
) -> dict[str, GoalState]:
    goals = {}
    for name in spool.names():
        last, prompts = spool.read(name)
        made = provenance.model_copy(update={"count": len(last)})
        if config.kind == "nearest":
            goals[name] = GoalState(
                name, torch.from_numpy(last[:].copy()), made, torch.from_numpy(prompts[:].copy())
            )
            continue
        if len(last) < config.clusters:
            raise DataError(
                f"{config.clusters} clusters need at least as many responses; {name!r} has "
                f"{len(last)}. Lower clusters or give more data."
            )
        centres = cluster(last, config.clusters, config.seed)
        goals[name] = GoalState(name, torch.from_numpy(centres), made)
    return goals
