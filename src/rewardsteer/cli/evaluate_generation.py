"""``rewardsteer evaluate generation``: decoding methods by reward, cost and preference."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardsteer.cli.compared_models import check_compared, compared_entries, load_compared
from rewardsteer.cli.engines import EngineOptions, choose_engine, engine_options
from rewardsteer.cli.evaluation_options import (
    Baseline,
    BothOrders,
    BudgetPerPrompt,
    BudgetUnit,
    CoherenceModel,
    JudgeFolder,
    JudgeKeyEnv,
    JudgeModel,
    JudgeUrl,
    KlPrompts,
    Limit,
    Methods,
    Out,
    Overwrite,
    Prompts,
    Resume,
    SecondJudge,
    Seeds,
    Weights,
    read_seeds,
    warn_of_own_judge,
)
from rewardsteer.cli.generate_options import Model
from rewardsteer.cli.kind import KindOption, KindOptions, read_kind
from rewardsteer.cli.starting import check_out, say
from rewardsteer.cli.template import TemplateOption, read_template, show_template

if TYPE_CHECKING:
    from rewardsteer.data.template import Template
    from rewardsteer.evaluation.budget import Budget
    from rewardsteer.evaluation.entries import Entry, Judge
    from rewardsteer.evaluation.policies import ComparedPolicy

# Settings that outputs of earlier versions, or of the default engine, do not name.
_BEFORE = {
    "second_judge": None, "dtype": None, "reward_dtype": None, "engine": "transformers",
    "base_url": None, "tokenizer": None,
}


@engine_options
def generation_command(
    *, model: Model = None, prompts: Prompts, methods: Methods, judge: JudgeFolder,
    out: Out = Path("out/evaluation"), baseline: Baseline = None, weights: Weights = None,
    budget: BudgetUnit = None, budget_per_prompt: BudgetPerPrompt = None,
    kl_prompts: KlPrompts = 0, judge_url: JudgeUrl = None, judge_model: JudgeModel = None,
    judge_key_env: JudgeKeyEnv = "OPENAI_API_KEY", both_orders: BothOrders = False,
    coherence: CoherenceModel = None,
    seeds: Seeds = None, limit: Limit = None, running: EngineOptions, resume: Resume = False,
    overwrite: Overwrite = False, template: TemplateOption = None, kind: KindOption = None,
    kind_option: KindOptions = None, second_judge: SecondJudge = None,
) -> None:
    """Compare decoding methods on the same prompts, at equal budgets if one is given.

    --kind and --kind-option are those of --judge.
    """
    from rewardsteer.decoding.requests import read_requests
    from rewardsteer.evaluation.method_settings import read_methods, sweep_weights

    settings, sweeps = read_methods(methods), dict[str, str]()
    choice = choose_engine(running, model)
    repeated = None if seeds is None else read_seeds(seeds)
    requests, written = read_requests(prompts, limit=limit), read_template(template)
    check_out(out, resume=resume, overwrite=overwrite)
    judges = [str(judge), *([] if second_judge is None else [second_judge])]
    of_judge = read_kind(kind, kind_option)
    check_compared(settings, judges, choice)
    from rewardsteer.evaluation.checks import check_divergence, check_labels
    from rewardsteer.evaluation.entries import Judge
    from rewardsteer.evaluation.policies import ComparedPolicy

    if weights is not None:
        settings, sweeps = sweep_weights(settings, weights)
    baseline = check_labels(list(settings), baseline)
    limits = _budget(budget, budget_per_prompt)
    check_divergence(limits, kl_prompts, choice.name)
    pairs = _pair_judge(judge_url, judge_model, judge_key_env)
    metrics = _metrics(coherence, running.reward_device or running.device)
    described = {
        "model": model, "judge": str(judge), "baseline": baseline, "coherence": coherence,
        "budget": limits and {"unit": limits.unit, "per_prompt": limits.per_prompt},
        "methods": {label: one.model_dump(mode="json") for label, one in settings.items()},
        "template": None if written is None else written.model_dump(mode="json"),
        "second_judge": second_judge, "dtype": running.dtype,
        "reward_dtype": running.reward_dtype, **choice.describe(),
    }
    scorers = load_compared(
        judges, settings.values(), choice, running, of_judge, budget=limits is not None
    )
    entries = compared_entries(settings, sweeps, scorers)
    described["fingerprints"] = {folder: one.fingerprint for folder, one in scorers.items()}
    if resume:
        _check_resumed(out / "run.json", described)
    asked = Judge(
        scorers[str(judge)], metrics, pairs, both_orders, scorers.get(second_judge or "")
    )
    warn_of_own_judge(entries, asked)
    _compare(
        entries, described, requests, asked, out, limits, ComparedPolicy(choice), kl_prompts,
        repeated, resume=resume, overwrite=overwrite,
    )


def _metrics(coherence: str | None, device: str) -> dict[str, Any]:
    from rewardsteer.evaluation.coherence import Coherence

    return {} if coherence is None else {"coherence": Coherence(coherence, device=device)}


def _budget(unit: str | None, per_prompt: float | None) -> "Budget | None":
    from rewardsteer.errors import ConfigError
    from rewardsteer.evaluation.budget import Budget

    if (unit is None) != (per_prompt is None):
        raise ConfigError("--budget and --budget-per-prompt go together; give both or neither.")
    if unit is None or per_prompt is None:
        return None
    return Budget(unit, per_prompt)  # type: ignore[arg-type]


def _pair_judge(url: str | None, model: str | None, key_env: str) -> Any:
    """The language model that judges pairs, after a check that it responds; None without one."""
    from rewardsteer.errors import ConfigError
    from rewardsteer.evaluation.pair_judge import PairJudge

    if (url is None) != (model is None):
        raise ConfigError("--judge-url and --judge-model go together; give both or neither.")
    if url is None or model is None:
        return None
    judge = PairJudge(url, model, key_env=key_env)
    judge.check()
    return judge


def _check_resumed(place: Path, settings: dict[str, Any]) -> None:
    """Refuse to resume with other settings; new methods and another baseline are allowed.

    Raises:
        ConfigError: names the settings that differ.
    """
    from rewardsteer.errors import ConfigError
    from rewardsteer.outputs import read_json

    if not place.exists():
        return
    before = _BEFORE | read_json(place)
    before["methods"] = {
        # Defaults for outputs of versions that had no such settings.
        label: {"draft_model": None, "gate_model": None} | known
        for label, known in before.get("methods", {}).items()
    }
    names = [name for name in ("model", "judge", "budget", "coherence", "template", *_BEFORE)
             if name in before]
    changed = [name for name in names if before[name] != (_BEFORE | settings)[name]]
    for part in ("methods", "fingerprints"):
        both = before.get(part, {}).keys() & settings[part].keys()
        changed += sorted(name for name in both if before[part][name] != settings[part][name])
    if changed:
        raise ConfigError(
            f"{place.parent} was begun with other settings of {', '.join(changed)}; resume with "
            "the same ones, or choose another output."
        )


def _show_templates(
    entries: list["Entry"], written: "Template | None", policy: "ComparedPolicy", model: str | None
) -> None:
    """Print the template of the prompts; where methods differ in it, each template once. A server
    that gives texts alone may write them itself."""
    from rewardsteer.decoding.crossing import writer_between

    ways: dict[str, tuple[Template, str]] = {}
    if "token_ids" not in policy.abilities:
        return
    tokenizer = policy.tokenizer
    for entry in entries:
        template, carrier = writer_between(written, tokenizer, entry.scorer)
        name = model if carrier is tokenizer else getattr(entry.scorer, "name", "") or model
        ways.setdefault(template.model_dump_json(), (template, str(name)))
    for template, name in ways.values():
        show_template(template, name)


def _say_unanswered(methods: dict[str, dict[str, float]], out: Path) -> None:
    for label, figures in methods.items():
        if figures.get("no_verdict"):
            say(
                f"{label}: the judge gave no verdict on {figures['no_verdict']:g} pairs, see "
                f"{out / 'judge.jsonl'}",
            )
        if figures.get("refused"):
            say(
                f"{label}: {figures['refused']:g} questions to the judge got no answer (see "
                f"{out / 'judge.jsonl'}); --resume asks them again",
            )


def _compare(
    entries: list["Entry"], described: dict[str, Any], requests: list[Any], judge: "Judge",
    out: Path, budget: "Budget | None", policy: "ComparedPolicy", kl_prompts: int,
    seeds: list[int] | None, *, resume: bool, overwrite: bool,
) -> None:
    """Run the comparison, write its files and print its tables."""
    from rewardsteer.data.template import stored_template
    from rewardsteer.evaluation.generation import compare
    from rewardsteer.evaluation.statistics import over
    from rewardsteer.outputs import claim_folder, read_json, write_json, write_text
    from rewardsteer.progress import stages
    from rewardsteer.reports import frontiers as report
    from rewardsteer.reports.overoptimization import WEIGHT_COLUMNS, weight_rows, weight_verdicts
    from rewardsteer.reports.tables import METHOD_COLUMNS, method_rows, print_table

    written = described["template"] and stored_template(described["template"])

    def begin() -> None:
        claim_folder(out, resume=resume, overwrite=overwrite)
        write_json(out / "run.json", described)
        _show_templates(entries, written, policy, described["model"])

    options: dict[str, Any] = {
        "template": written, "baseline": described["baseline"], "budget": budget,
        "kl_prompts": kl_prompts, "begin": begin,
        "announce": lambda text: say(f"running {text}"),
    }
    if seeds is not None:
        _compare_seeds(seeds, entries, policy, requests, judge, out, **options)
        return
    with stages("prompts") as progress:
        methods = compare(
            entries, policy, requests, judge, out, progress=progress, **options
        )
    summary = read_json(out / "summary.json")
    for note in summary["notes"]:
        say(note)
    for name, svg in report.frontiers(summary).items():
        write_text(out / f"frontier-{name}.svg", svg)
    for title, columns, rows in (
        (
            f"{over(len(requests), 'prompt')}; ±: standard error; calls, ms, RM tokens: per token",
            METHOD_COLUMNS, method_rows(methods),
        ),
        ("reward and what it costs", report.FRONTIER_COLUMNS, report.frontier_rows(methods)),
        ("gold and proxy by weight", WEIGHT_COLUMNS, weight_rows(summary)),
        ("pairs, by a language model", report.WIN_COLUMNS, report.win_rows(methods)),
    ):
        if rows:
            print_table(title, columns, rows)
    for text in weight_verdicts(summary):
        say(text)
    _say_unanswered(methods, out)
    say(f"written to {out}")


def _compare_seeds(
    seeds: list[int], entries: list["Entry"], policy: "ComparedPolicy", requests: list[Any],
    judge: "Judge", out: Path, **options: Any,
) -> None:
    from rewardsteer.evaluation.runs import compare_seeds
    from rewardsteer.evaluation.statistics import over
    from rewardsteer.progress import stages
    from rewardsteer.reports.tables import SEED_COLUMNS, print_table, seed_rows

    with stages("prompts") as progress:
        methods = compare_seeds(
            seeds, entries, policy, requests, judge, out, progress=progress, **options
        )
    title = f"{len(seeds)} seeds, {over(len(requests), 'prompt')}"
    print_table(title, SEED_COLUMNS, seed_rows(methods))
    say(f"written to {out}")
