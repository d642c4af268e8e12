"""Methods on common prompts: generate responses, judge them, and compare with a baseline method.

    OUT/METHOD.jsonl    records, see `rewardsteer.evaluation.judged_run`
    OUT/judge.jsonl     verdicts of a language model on pairs of responses
    OUT/summary.json    ``methods``: figures of each, in order; ``baseline``: a label; ``sweeps``:
                        labels of methods that differ by weight alone, ``weights`` theirs;
                        ``peaks``: by sweep the weight at which gold is highest, tested;
                        ``judged_by_guide``: labels of methods that the judge's own model guides;
                        ``intervals``: what they are over; ``notes``: on prompts and responses
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rewardsteer.data.template import Template
from rewardsteer.decoding.crossing import adapted
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.methods import is_best_of_n
from rewardsteer.decoding.prompts import prompts_as_read
from rewardsteer.decoding.requests import Request
from rewardsteer.evaluation.budget import Budget
from rewardsteer.evaluation.checks import check_divergence, check_labels, check_run
from rewardsteer.evaluation.data_notes import record_notes
from rewardsteer.evaluation.divergence import response_kl
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.judge import win_rates
from rewardsteer.evaluation.judged_run import Run
from rewardsteer.evaluation.method_figures import summarise
from rewardsteer.evaluation.overoptimization import best_of_n_bound, weight_peaks
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.statistics import gains, mean, over
from rewardsteer.outputs import write_json
from rewardsteer.records import EvalRecord


def compare(
    entries: Sequence[Entry], policy: ComparedPolicy, requests: Sequence[Request], judge: Judge,
    out: Path, *, template: Template | None = None, baseline: str | None = None,
    budget: Budget | None = None, kl_prompts: int = 0, known: Path | None = None,
    begin: Callable[[], None] = lambda: None, announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> dict[str, dict[str, float]]:
    """Run every entry on the same prompts and write ``summary.json``; returns its ``methods``.

    Args:
        entries: what to compare.
        policy: the policy, on any engine.
        requests: the prompts.
        judge: how responses are judged.
        out: the folder of the results.
        template: how prompts are written; default: each reward model's, else the plain one.
        baseline: label of the entry that all are compared with; default: the first.
        budget: what each entry may spend per prompt; None: each answers once.
        kl_prompts: number of prompts on whose responses each method's ``kl`` from the policy is
            measured, at the cost of generating these one by one; 0: none. Not possible with a
            budget, since responses chosen among several are no draws of the method, and with a
            policy outside this process.
        known: folder of a comparison of the same entries and prompts without a budget, whose
            answers become the entries' first draws instead of new ones.
        begin: called once everything is checked, before anything is written.
        announce: called with the name of each step as it begins.
        progress: called with an entry's label, its number of judged prompts, and the total.

    Raises:
        ConfigError: no entry has the label of the baseline; a budget and ``kl_prompts``; the engine
            cannot run an entry, or does not know the sizes that a budget of tokens needs.
        DataError: two entries would share a file, or a file holds answers to other prompts.
        MismatchError: the judge cannot score single responses, or has a vocabulary head; prompts
            are token ids, and the judge has another tokenizer than the policy.
    """
    baseline = check_labels([entry.label for entry in entries], baseline)
    check_divergence(budget, kl_prompts, policy.engine)
    run = Run(policy, requests, judge, out, template, budget, progress, known)
    check_run(run, entries)
    begin()
    results: dict[str, list[EvalRecord]] = {}
    for entry in entries:
        announce(entry.label)
        results[entry.label] = run.records(entry)
    summary = {label: summarise(records, results[baseline]) for label, records in results.items()}
    for label, adjusted in _p_values(results, baseline).items():
        summary[label] |= adjusted
    for entry in entries:
        if is_best_of_n(entry.config.method):
            n = entry.config.n if budget is None else int(summary[entry.label]["draws"])
            summary[entry.label]["kl_bound"] = best_of_n_bound(n)
    if kl_prompts:
        announce(f"KL divergences, on {min(kl_prompts, len(requests))} prompts")
        for entry in entries:
            summary[entry.label] |= _divergence(run, entry, results[entry.label][:kl_prompts])
    if judge.pairs is not None:
        announce(f"pairs, by {judge.pairs.model}")
        rates = win_rates(
            judge.pairs, results, baseline, out / "judge.jsonl", both_orders=judge.both_orders
        )
        summary = {label: figures | rates.get(label, {}) for label, figures in summary.items()}
    sweeps = _sweeps(entries)
    weights = {one.label: one.config.weight for one in entries if one.sweep}
    write_json(out / "summary.json", {
        "methods": summary, "baseline": baseline, "sweeps": sweeps, "weights": weights,
        "intervals": over(len(requests), "prompt"),
        "peaks": weight_peaks(results, sweeps, weights),
        "judged_by_guide": judged_by_guide(entries, judge),
        "notes": record_notes(list(results.values())),
    })
    return summary


def _p_values(
    results: Mapping[str, Sequence[EvalRecord]], baseline: str
) -> dict[str, dict[str, float]]:
    """``*_gain_p`` of each metric by label: p-values of the gains over the baseline, adjusted by
    Holm for the number of methods compared with it."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for name in results[baseline][0].metrics:
        values = {
            label: [record.metrics[name] for record in records]
            for label, records in results.items()
        }
        own = values.pop(baseline)
        for label, gain in gains(values, own).items():
            if not np.isnan(gain.adjusted_p):
                found[label][f"{name}_gain_p"] = gain.adjusted_p
    return found


def judged_by_guide(entries: Sequence[Entry], judge: Judge) -> list[str]:
    """Labels of the methods that the judge's own model guides, whose rewards are therefore too
    high."""
    return [entry.label for entry in entries if judge.guides(entry.method().scorer)]


def _sweeps(entries: Sequence[Entry]) -> dict[str, list[str]]:
    sweeps = defaultdict(list)
    for entry in entries:
        if entry.sweep:
            sweeps[entry.sweep].append(entry.label)
    return dict(sweeps)


def _divergence(run: Run, entry: Entry, records: Sequence[EvalRecord]) -> dict[str, float]:
    """``kl`` of an entry's responses from the policy's, nats per response, with its interval; for
    best of n the upper bound. Empty for methods that search step by step, whose KL is unknown."""
    if is_best_of_n(entry.config.method):
        return {"kl": best_of_n_bound(entry.config.n)}
    method = entry.method()
    if not isinstance(method, LogitsGuide):
        return {}
    prompts = prompts_as_read(run.requests, run.policy.tokenizer, method.scorer, run.template)
    method = adapted(method, run.policy.open(entry, entry.config)[0])
    found = [
        response_kl(
            run.policy.model, method, prompts[one.generation.id], one.generation.token_ids,
            entry.config, one.generation.id,
        )
        for one in records
    ]
    return mean(found).figures("kl")
