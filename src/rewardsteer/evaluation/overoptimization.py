"""Over-optimisation: gains in the reward that chooses or guides (proxy) and in another value, gold.

Of N recorded samples of a prompt, every subset of n is a draw of n samples from the policy. The
mean over all C(N, n) subsets of the chosen sample's value is an unbiased estimate of the value of
best of n. Its closed form: in ascending order of the choosing reward, the sample of rank j is
chosen from C(j − 1, n − 1) subsets. For guidance, responses are compared over the weights
(`weight_peaks`).
"""

import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from rewardsteer.errors import DataError
from rewardsteer.evaluation.statistics import FEWEST, mean, paired_difference
from rewardsteer.records import EvalRecord


@dataclass(frozen=True)
class Recorded:
    """Samples of one prompt as parallel lists: their texts, the reward that chooses (proxy), and
    the value that counts (gold: another reward, or whether the answer is correct)."""

    texts: Sequence[str]
    proxy: Sequence[float]
    gold: Sequence[float]


def chance_of_choice(rewards: Sequence[float] | np.ndarray, n: int) -> np.ndarray:
    """Probability ``[N]`` that each of N samples is chosen as the best of n of them.

    The n are drawn without replacement; samples of equal reward share their chance evenly.

    Raises:
        DataError: a reward that is no number, or n not between 1 and N.
    """
    values = np.asarray(rewards, dtype=float)
    if np.isnan(values).any():
        raise DataError("Rewards of samples must be numbers, got NaN.")
    if not 1 <= n <= len(values):
        raise DataError(f"Best of n needs n from 1 to the {len(values)} samples, got {n}.")
    # In ascending order of rewards the sample of rank j is the best of C(j − 1, n − 1) subsets.
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.arange(1, len(values) + 1)
    reached = ranks >= n
    ways = _log_subsets(np.where(reached, ranks, n) - 1, n - 1)
    chances = np.where(reached, np.exp(ways - _log_subsets(np.array(len(values)), n)), 0.0)
    levels = np.add.reduceat(chances, np.cumsum(counts) - counts) / counts
    return np.asarray(levels[places])


def best_of_n_value(rewards: Sequence[float], values: Sequence[float], n: int) -> float:
    """Mean, over all subsets of n samples, of the value of the sample with the highest reward.

    Args:
        rewards: rewards that choose, one per sample.
        values: one per sample; with the rewards themselves the result is the expected maximum.
        n: size of the subsets.

    Raises:
        DataError: lengths that differ, a reward that is no number, or n not between 1 and N.
    """
    if len(rewards) != len(values):
        raise DataError(f"Expected a value per reward, got {len(values)} for {len(rewards)}.")
    return float(chance_of_choice(rewards, n) @ np.asarray(values, dtype=float))


def measured_kl(texts: Sequence[str], rewards: Sequence[float], n: int) -> float:
    """KL divergence (nats) of best of n from the policy, as distributions over texts. The policy is
    the empirical distribution of the samples; n are drawn with replacement.

    Equal texts are one outcome. The value is at most log n − (n − 1)/n, and less where texts or
    rewards repeat, or where n is near the number of samples.
    """
    _, levels, counts = np.unique(
        np.asarray(rewards, dtype=float), return_inverse=True, return_counts=True
    )
    upto = np.cumsum(counts) / len(texts)
    chances = (np.diff(upto**n, prepend=0.0) / counts)[levels]
    _, places = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)
    chosen, drawn = np.bincount(places, weights=chances), np.bincount(places) / len(texts)
    kept = chosen > 0
    return float(np.sum(chosen[kept] * np.log(chosen[kept] / drawn[kept])))


def overoptimization(prompts: Mapping[str, Recorded]) -> dict[str, Any]:
    """Proxy and gold value of best of n for n = 1, 2, 4, … with 95 % intervals over prompts.

    Returns:
        ``curve``: a row per n, over the ``prompts`` that have n samples: ``kl_bound``, ``kl``
        (measured), ``proxy``, ``gold``, and their gains over one sample of the same prompts;
        ``peak``: the n that is best on one half of the prompts, and the difference of the largest n
        from it on the other half.

    Raises:
        DataError: no prompt has two samples.
    """
    most = max((len(one.texts) for one in prompts.values()), default=0)
    if most < 2:
        raise DataError("Best of n needs prompts with at least two samples that have both values.")
    sizes = [2**power for power in range(most.bit_length()) if 2**power < most] + [most]
    curve = [_row({key: one for key, one in prompts.items() if len(one.texts) >= n}, n)
             for n in sizes]
    full = [row["n"] for row in curve if row["prompts"] == curve[0]["prompts"]]
    whole = {key: one for key, one in prompts.items() if len(one.texts) >= max(full)}
    found = peak("n", {
        n: {key: best_of_n_value(one.proxy, one.gold, int(n)) for key, one in whole.items()}
        for n in full
    })
    samples = sum(len(one.texts) for one in prompts.values())
    return {"samples": samples, "curve": curve, **({"peak": found} if found else {})}


def _row(prompts: Mapping[str, Recorded], n: int) -> dict[str, float]:
    row: dict[str, float] = {
        "n": n, "prompts": len(prompts), "kl_bound": best_of_n_bound(n),
        "kl": float(np.mean([measured_kl(one.texts, one.proxy, n) for one in prompts.values()])),
    }
    for name in ("proxy", "gold"):
        best = [best_of_n_value(one.proxy, getattr(one, name), n) for one in prompts.values()]
        single = [float(np.mean(getattr(one, name))) for one in prompts.values()]
        row |= mean(best).figures(name)
        row |= paired_difference(best, single).figures(f"{name}_gain")
    return row


def peak(name: str, gold: Mapping[float, Mapping[str, float]]) -> dict[str, float]:
    """The setting with the highest gold value, chosen and tested on different prompts, so that the
    test is not biased by the choice.

    Args:
        name: name of the setting.
        gold: setting (n of best of n, or the weight of guidance) → value of each prompt, the same
            prompts for all settings.

    Returns:
        the setting that is best on one half of the prompts, the ``largest`` one, and on the
        ``prompts`` of the other half the largest's value minus the best one's (``change`` with its
        interval); empty for fewer than ten prompts per half.
    """
    halves: tuple[list[str], list[str]] = ([], [])
    for key in next(iter(gold.values()), {}):
        halves[zlib.crc32(key.encode()) % 2].append(key)
    first, second = halves
    if min(len(first), len(second)) < FEWEST:
        return {}
    best = max(gold, key=lambda one: float(np.mean([gold[one][key] for key in first])))
    largest = max(gold)
    loss = paired_difference(
        [gold[largest][key] for key in second], [gold[best][key] for key in second]
    )
    return {name: best, "largest": largest, "prompts": len(second)} | loss.figures("change")


def weight_peaks(
    results: Mapping[str, Sequence[EvalRecord]], sweeps: Mapping[str, Sequence[str]],
    weights: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """`peak` over the weights of each sweep, where the records have a gold value.

    Args:
        results: records by label of method.
        sweeps: labels of methods that differ by weight alone.
        weights: guidance weight by label.
    """
    found = {}
    for sweep, labels in sweeps.items():
        gold = gold_of(results[labels[0]][0].metrics)
        if gold is not None:
            found[sweep] = peak("weight", {
                weights[label]: {one.generation.id: one.metrics[gold] for one in results[label]}
                for label in labels
            })
    return {sweep: one for sweep, one in found.items() if one}


def gold_of(metrics: Collection[str]) -> str | None:
    """The gold metric where the judge's reward is the proxy: the second judge's reward, else
    accuracy; None where there is neither."""
    return next((name for name in ("second_reward", "accuracy") if name in metrics), None)


def _log_subsets(count: np.ndarray, n: int) -> np.ndarray:
    """log C(count, n); ``count`` at least n."""
    return np.asarray(gammaln(count + 1) - gammaln(count - n + 1) - gammaln(n + 1))


def best_of_n_bound(n: int) -> float:
    """log n − (n − 1)/n in nats, an upper bound of the KL divergence of best of n from the sampled
    policy, per response (arXiv 2401.01879)."""
    return math.log(n) - (n - 1) / n
