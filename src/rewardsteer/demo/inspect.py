"""Some of the demo's solutions token by token, for its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.arithmetic import is_correct
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.demo.config import DemoConfig
from rewardsteer.evaluation.inspection import FilterRule, as_read, inspect_completion
from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.evaluation.record_files import read_records
from rewardsteer.goals.files import load_goal
from rewardsteer.models.scorer import Scorer
from rewardsteer.outputs import write_text
from rewardsteer.records import Generation

_EACH = 3  # questions shown with each reward model


def inspect_solutions(
    policy: Any, tokenizer: Any, scorers: Mapping[str, Scorer], config: DemoConfig,
    weight: float, threshold: float, out: Path,
) -> None:
    """Write ``OUT/inspections.jsonl``.

    First come questions that the policy alone answers incorrectly: its solution and the one guided
    by FaRMA. Then come solutions of the policy with similarities to the goal state and the filter.

    Args:
        policy, tokenizer, scorers, config: those of the demo.
        weight: FaRMA's guidance weight.
        threshold: the similarity filter's threshold, chosen on other questions.
        out: the demo's folder, which holds the comparison.
    """
    place = out / "comparison" / "test"
    plain, guided = (
        {key: record.generation for key, record in read_records(place / f"{name}.jsonl").items()}
        for name in ("none", "farma")
    )
    wrong = [key for key, one in plain.items() if not _right(one)]
    right = [key for key in plain if key not in wrong]
    farma = DecodingConfig(method="farma", weight=weight, top_k=10)
    alone = DecodingConfig(method="none", top_k=10)
    goal = load_goal(Path(scorers["goal"].name))
    found: list[Inspection] = []

    def look(generation: Generation, scorer: Scorer, settings: DecodingConfig, label: str,
             **options: Any) -> None:
        method = build_method(settings, scorer)
        row = {"id": generation.id, "prompt": generation.prompt, "token_ids": generation.token_ids}
        ids = as_read(policy, tokenizer, scorer, method, settings, row)
        one = inspect_completion(
            policy, tokenizer, scorer, method, *ids, config=settings, name=str(len(found)),
            **options,
        )
        found.append(one.model_copy(update={
            "label": f"{generation.prompt} {label}", "is_correct": _right(generation),
            "settings": settings.model_dump(mode="json", include={"method", "weight"})
            | {"reward_fingerprint": scorer.fingerprint},
        }))

    for key in wrong[:_EACH]:
        look(plain[key], scorers["farma"], farma, "by the policy, under FaRMA")
        look(guided[key], scorers["farma"], farma, "by FaRMA")
    rule = FilterRule("similarity", threshold, start=0)
    for key in [*wrong[:_EACH], *right[:_EACH]]:
        look(plain[key], scorers["goal"], alone, "by the policy, under the goal model",
             goal=goal, rule=rule)
    write_text(out / "inspections.jsonl", "".join(one.model_dump_json() + "\n" for one in found))


def _right(generation: Generation) -> bool:
    return is_correct(generation.prompt, generation.completion)
