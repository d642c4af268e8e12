"""`evaluate` measures the quality of a reward model; `compare` measures decoding methods."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardsteer.api.inputs import as_json_lines, as_prompts
from rewardsteer.api.reward_model import RewardModel, as_reward_model
from rewardsteer.api.table import Table
from rewardsteer.configuration import load_config
from rewardsteer.data.responses import Responses
from rewardsteer.data.sources import held_out_rows, only_pairs
from rewardsteer.data.store import MANIFEST
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.errors import ConfigError
from rewardsteer.evaluation.reward_benchmarks import REWARD_BENCHMARKS
from rewardsteer.models.batching import check_batch_size
from rewardsteer.models.text_scorer import require_tokens
from rewardsteer.quiet import quiet_calls
from rewardsteer.reports.tables import preference_groups

if TYPE_CHECKING:

    from rewardsteer.api.steerer import Steerer
    from rewardsteer.evaluation.entries import Entry


@quiet_calls
def evaluate(
    reward_model: RewardModel | str | Path, data: Any, *, path: str | Path | None = None,
    source: str = "pairs", batch_size: int = 16, **options: Any,
) -> Table:
    """Evaluate a reward model on a benchmark, by name, or on preference pairs.

        evaluate(rm, "rewardbench2")
        evaluate(rm, pairs)

    Args:
        reward_model: a `RewardModel`, or a folder or name to load one from.
        data: a benchmark's name (``rewardsteer.BENCHMARKS``), a folder made by ``rewardsteer data
            prepare``, a file or folder of pairs, or rows: a dataset or a list of mappings with
            ``prompt``, ``chosen`` and ``rejected``.
        path: the published file or folder of a benchmark; None: the hub, or its local cache.
        source: the data source that reads a file of pairs, see docs/data.md.
        batch_size: rows scored together.
        options: of the benchmark (``threshold`` of step scores), and of a guide (``weight``,
            ``test_fraction``, ``seed``).

    Returns:
        for a benchmark, one row per figure: ``score`` with the ends of its 95 % interval and the
        figures of controls that use no model. For pairs, a row ``all`` and one per subset:
        ``count``, ``accuracy`` (a tie counts one half) with its 95 % interval over prompts,
        ``margin``. For the sources ``ratings``, ``ranked`` and ``labels``, one row per number, see
        `rewardsteer.evaluation.responses.evaluate_responses`. For the source ``guide`` and a
        folder of a teacher's records, see `rewardsteer.evaluation.guide.evaluate_guide`.

    Raises:
        ConfigError: an option that the benchmark does not have.
        DataError: there are no pairs that the model can score.
        MismatchError: the data was prepared with another template or tokenizer.
    """
    from rewardsteer.evaluation.guide import evaluate_guide
    from rewardsteer.evaluation.preference import evaluate_comparisons, evaluate_preference
    from rewardsteer.evaluation.responses import evaluate_responses
    from rewardsteer.evaluation.reward_benchmarks.run import evaluate_benchmark

    check_batch_size(batch_size)
    model = as_reward_model(reward_model)
    if isinstance(data, str) and data in REWARD_BENCHMARKS and not Path(data).exists():
        return Table(data, evaluate_benchmark(
            model.scorer, data, path, batch_size=batch_size, **options
        ))
    if source == "guide":
        scorer = require_tokens(model.scorer, "comparing guides")
        return Table("guidance against the teacher", evaluate_guide(
            scorer, Path(data), batch_size=batch_size, **options
        ))
    if path is not None or options:
        raise ConfigError(
            f"Expected the name of a benchmark ({', '.join(REWARD_BENCHMARKS.names())}) with "
            f"{', '.join(['path'] * (path is not None) + list(options))}, got {data!r}."
        )
    if isinstance(data, str | Path) and (Path(data) / MANIFEST).exists():
        figures = evaluate_preference(model.scorer, Path(data), batch_size=batch_size)
    else:
        rows = _rows(data, source)
        if isinstance(rows[0], Responses):
            return Table("agreement with numbers", evaluate_responses(
                model.scorer, rows, batch_size=batch_size
            ))
        figures = evaluate_comparisons(model.scorer, rows, batch_size=batch_size)
    return Table("preference accuracy", preference_groups(figures))


def _rows(data: Any, source: str) -> list[Any]:
    """Comparisons, or responses with numbers."""
    if isinstance(data, str | Path):
        return _checked(held_out_rows(source, Path(data)), source)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "pairs.jsonl"
        place.write_text(as_json_lines(data), encoding="utf-8")
        return _checked(held_out_rows(source, place), source)


def _checked(rows: list[Any], source: str) -> list[Any]:
    responses = bool(rows) and all(isinstance(row, Responses) for row in rows)
    return rows if responses else only_pairs(rows, source)


@quiet_calls
def compare(
    steerer: "Steerer", prompts: Any, methods: Sequence[str] | Mapping[str, Mapping[str, Any]], *,
    judge: RewardModel | str | Path, budget: str | None = None, budget_per_prompt: float = 0.0,
    output_dir: str | Path | None = None,
) -> Table:
    """Compare decoding methods on the same prompts, scored by a reward model as judge.

    Args:
        steerer: gives the policy, its engine, the reward model and the settings that the methods
            share.
        prompts: texts or conversations.
        methods: names, or settings of `SteeringConfig` by label; the first is the baseline. The
            settings may include ``draft_model`` and ``gate_model`` as for a `Steerer`; by default
            methods that need one use the steerer's.
        judge: any reward model without a vocabulary head, preferably not the one that guides.
        budget: compare at equal ``tokens``, ``seconds`` or ``calls`` per prompt.
        budget_per_prompt: amount of the budget.
        output_dir: folder for answers and ``summary.json``; None: they are not kept.

    Returns:
        one row per method: mean reward with interval and gain over the baseline, costs.

    Raises:
        ConfigError: unknown method or setting, or one that the engine cannot run.
        MismatchError: a reward model does not fit.
    """
    from rewardsteer.decoding.requests import as_requests
    from rewardsteer.evaluation import generation
    from rewardsteer.evaluation.budget import Budget
    from rewardsteer.evaluation.entries import Judge
    from rewardsteer.evaluation.policies import ComparedPolicy

    limits = None if budget is None else Budget(budget, budget_per_prompt)  # type: ignore[arg-type]
    entries = _entries(steerer, methods)
    # A GPU has no room for two of vLLM.
    steerer.close()
    with ExitStack() as stack:
        place = output_dir or stack.enter_context(tempfile.TemporaryDirectory())
        policy = stack.enter_context(closing(ComparedPolicy(steerer.choice)))
        figures = generation.compare(
            entries, policy, as_requests(as_prompts(prompts)),
            Judge(as_reward_model(judge).scorer, {}), Path(place),
            template=steerer.template, budget=limits,
        )
    return Table("decoding methods", figures)


def _entries(
    steerer: "Steerer", methods: Sequence[str] | Mapping[str, Mapping[str, Any]]
) -> "list[Entry]":
    """Entries of a comparison. Methods and second models are checked before any policy loads."""
    from rewardsteer.evaluation.entries import Entry

    shared = steerer.config.model_dump(include=steerer.config.model_fields_set - {"method"})
    named = methods if isinstance(methods, Mapping) else {one: {"method": one} for one in methods}
    scorer = functools.cache(lambda model: as_reward_model(model).scorer)
    entries, choice = [], steerer.choice
    for label, settings in named.items():
        own = dict(settings)
        draft, gate = own.pop("draft_model", None), own.pop("gate_model", None)
        config = load_config(DecodingConfig, {"method": label, **shared, **own})
        scout = steerer.scout_for(config) if gate is None else scorer(gate)
        drafter = steerer.drafter_for(config) if draft is None else draft
        entry = Entry(label, config, *steerer.parts_for(config), scout=scout, drafter=drafter)
        entry.method()
        choice.check_method(config.method)
        choice.check_second_models(config, drafter, None)
        entries.append(entry)
    return entries
