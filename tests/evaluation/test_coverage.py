"""How often intervals hold the truth: simulations of each kind, as the table in docs/statistics.md.

Where a figure is a mean over questions, a pool of questions is made once; its mean is the truth,
and each data set draws from it.
"""

import numpy as np
import pytest
from scipy.stats import norm

from rewardsteer.evaluation.reward_benchmarks.base import Item
from rewardsteer.evaluation.reward_benchmarks.judgebench import JudgeBench
from rewardsteer.evaluation.reward_benchmarks.measuring import measure
from rewardsteer.evaluation.reward_benchmarks.resampling import intervals
from rewardsteer.evaluation.statistics import (
    auroc,
    auroc_difference,
    auroc_interval,
    auroc_within_interval,
    correlation_interval,
    gains,
    mean,
    over_runs,
    share,
    two_level,
)
from rewardsteer.evaluation.stopping import adaptive_consistency, early_stopping, over_orders
from rewardsteer.evaluation.voting import best_of_k, pass_at_k, vote_at_k

pytestmark = pytest.mark.slow


def coverage(make, truth, times):
    """Share of ``times`` intervals that hold the truth; ``make`` gives one of a new data set."""
    rng = np.random.default_rng(0)
    return np.mean([found.low <= truth <= found.high for found in
                    (make(rng) for _ in range(times))])


def holds(make, truth, times=2000, most=0.97):
    assert 0.93 <= coverage(make, truth, times) <= most


def drawn_from(pool, size, interval):
    """Intervals of ``size`` questions of a pool."""
    return lambda rng: interval(pool[rng.integers(len(pool), size=size)])


def _questions(rng, count, rows, effect):
    """Rows ``[count, rows]`` of 0 and 1 whose questions differ by a normal effect in logits."""
    level = rng.normal(0.8, effect, size=(count, 1))
    return (rng.random((count, rows)) < 1 / (1 + np.exp(-level))).astype(float)


@pytest.mark.parametrize(("count", "rows", "effect"), [
    (100, 4, 1.0), (100, 4, 3.0), (40, 8, 2.0), (300, 1, 0.0), (30, 2, 1.0), (10, 4, 1.0),
])
def test_shares_with_clusters(count, rows, effect):
    truth = _questions(np.random.default_rng(9), 400_000, 1, effect).mean()
    names = np.repeat(np.arange(count), rows)
    holds(lambda rng: share(_questions(rng, count, rows, effect).ravel(), names), truth)


@pytest.mark.parametrize("ties", [0.2, 0.6, 0.8])
def test_win_rates_with_ties(ties):
    chances = [0.6 * (1 - ties), ties, 0.4 * (1 - ties)]
    holds(
        lambda rng: share(rng.choice([1.0, 0.5, 0.0], size=200, p=chances)),
        chances[0] + ties / 2,
    )


def test_win_rates_of_a_judge_asked_in_both_orders():
    """A judge that prefers what comes first; the two verdicts on a prompt are one value."""
    def values(rng, size):
        better = rng.normal(0.3, 1.0, size=(size, 1)) + np.array([[0.7, -0.7]])
        return (better + rng.normal(0, 0.5, size=(size, 2)) > 0).mean(axis=1)

    truth = values(np.random.default_rng(9), 400_000).mean()
    holds(lambda rng: share(values(rng, 80)), truth)


@pytest.fixture(scope="module")
def pool():
    """Figures of 4,000 questions with 8 solutions each."""
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(4000):
        chance = rng.beta(2, 1.5)
        correct = rng.random(8) < chance
        wrong = rng.choice(["2", "3", "4"], size=8, p=[0.6, 0.3, 0.1])
        answers = ["1" if one else other for one, other in zip(correct, wrong, strict=True)]
        rewards, right = rng.normal(size=8) + correct, correct.tolist()
        tokens = rng.integers(50, 300, size=8).tolist()
        orders = {"orders": 3, "rng": rng}
        esc = over_orders(lambda given: early_stopping(given, 3), answers, right, tokens, **orders)
        adaptive = over_orders(adaptive_consistency, answers, right, tokens, **orders)
        rows.append({
            "majority": vote_at_k(answers, right, 5, rng=rng, draws=60),
            "best_of": best_of_k(rewards.tolist(), right, 4), "pass": pass_at_k(right, 4),
            "esc": esc[0], "adaptive": adaptive[0], "esc_tokens": esc[2],
            "within": auroc(correct, rewards),
        })
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("name", ["majority", "best_of", "pass", "esc", "adaptive"])
def test_votes_and_choices(pool, name):
    holds(drawn_from(pool[name], 60, share), pool[name].mean())


def test_tokens_of_a_stopping_rule(pool):
    holds(drawn_from(pool["esc_tokens"], 60, mean), pool["esc_tokens"].mean())


def test_auroc_within_questions(pool):
    known = pool["within"][~np.isnan(pool["within"])]
    holds(drawn_from(known, 60, share), known.mean())


def _within(rng, questions, rows):
    labels = rng.random((questions, rows)) < rng.beta(1, 1, size=(questions, 1))
    scores = labels + rng.normal(size=(questions, rows)) * rng.uniform(0.5, 3, size=(questions, 1))
    return labels.ravel(), scores.ravel(), np.repeat(np.arange(questions), rows)


def test_auroc_within_questions_by_pairs():
    truth = auroc_within_interval(
        *_within(np.random.default_rng(9), 20_000, 6), by_pairs=True
    )[0].value
    holds(
        lambda rng: auroc_within_interval(*_within(rng, 60, 6), by_pairs=True)[0], truth,
        times=800,
    )


@pytest.mark.parametrize(("questions", "sources"), [(60, 2), (30, 5)])
def test_auroc_within_sources_over_questions(questions, sources):
    """Questions differ in difficulty, sources in accuracy; the reward knows a little of both."""
    strength = np.linspace(-1.5, 1.5, sources)

    def one(rng, questions=questions):
        hard = rng.normal(size=(questions, 1))
        labels = rng.random((questions, sources)) < 1 / (1 + np.exp(-strength - hard))
        scores = 0.7 * labels + strength + 0.5 * hard + rng.normal(size=labels.shape)
        groups, keys = np.indices(labels.shape)
        return auroc_interval(
            labels.ravel(), scores.ravel(), groups=groups.ravel(), within=keys.ravel()
        )

    holds(one, one(np.random.default_rng(9), 100_000).value)


def _pooled(rng, questions, rows, base, gap):
    effect = rng.normal(size=(questions, 1)) * (rows > 1)
    labels = rng.random((questions, rows)) < 1 / (1 + np.exp(-base - effect))
    scores = gap * labels + 0.5 * rng.normal(size=(questions, 1)) + rng.normal(size=labels.shape)
    return labels.ravel(), scores.ravel(), np.repeat(np.arange(questions), rows)


@pytest.mark.parametrize(("questions", "rows", "base", "gap"), [
    (100, 8, 0.0, 1.0), (20, 8, 0.0, 1.0), (100, 4, 3.5, 1.0), (300, 1, 3.5, 1.0),
    (300, 1, 4.6, 1.0), (30, 1, 0.0, 1.0), (100, 4, 0.0, 2.0),
])
def test_pooled_auroc_with_few_of_a_class_too(questions, rows, base, gap):
    labels, scores, _ = _pooled(np.random.default_rng(9), 200_000, rows, base, gap)

    def one(rng):
        while True:
            labels, scores, groups = _pooled(rng, questions, rows, base, gap)
            if 0 < labels.sum() < len(labels):
                return auroc_interval(labels, scores, groups=groups)

    holds(one, auroc(labels, scores), times=1500)


def _two_scores(rng, questions, rows, base):
    labels, scores, groups = _pooled(rng, questions, rows, base, 1.0)
    return labels, scores, scores - 0.4 * labels + 0.7 * rng.normal(size=len(scores)), groups


@pytest.mark.parametrize(("questions", "rows", "base"), [(100, 4, 0.0), (20, 6, 0.0),
                                                         (200, 1, 2.5)])
def test_differences_of_auroc(questions, rows, base):
    labels, scores, other, _ = _two_scores(np.random.default_rng(9), 200_000, rows, base)

    def one(rng):
        labels, scores, other, groups = _two_scores(rng, questions, rows, base)
        return auroc_difference(labels, scores, other, groups=groups)

    holds(one, auroc(labels, scores) - auroc(labels, other), times=1500)


@pytest.mark.parametrize("ranks", [False, True])
@pytest.mark.parametrize(("prompts", "rows"), [(100, 3), (30, 2), (100, 1), (15, 1)])
def test_correlations(prompts, rows, ranks):
    def values(rng, prompts):
        level, own = rng.normal(size=(prompts, 1)), rng.normal(size=(prompts, rows))
        first, noise = 0.6 * level + own, rng.normal(size=(prompts, rows))
        return first.ravel(), (0.6 * level + 0.5 * own + noise).ravel()

    names = np.repeat(np.arange(prompts), rows)
    truth = correlation_interval(*values(np.random.default_rng(9), 200_000), ranks=ranks).value
    holds(
        lambda rng: correlation_interval(*values(rng, prompts), names, ranks=ranks), truth,
        times=1500,
    )


def test_figures_of_benchmarks():
    """JudgeBench's accuracy over clusters of five pairs."""
    def one(rng):
        level = rng.normal(1, 1, size=(60, 1))
        right = rng.random((60, 5)) < 1 / (1 + np.exp(-level))
        items = [
            Item(f"shp/{number}", "?", ("a", "b"), "shp", str(number // 5), {"first": True})
            for number in range(300)
        ]
        scores = [np.array([float(own), 0.5]) for own in right.ravel()]
        return intervals(measure(JudgeBench(), items, scores, resamples=200))["overall"]

    level = np.random.default_rng(9).normal(1, 1, size=400_000)
    holds(one, float((1 / (1 + np.exp(-level))).mean()), times=300)


@pytest.mark.parametrize(("rows", "accuracy"), [(40, 0.7), (56, 0.93), (98, 0.96), (160, 0.98)])
def test_small_subsets_of_benchmarks_with_high_accuracies(rows, accuracy):
    items = [Item(f"m/{n}", "?", ("a", "b"), "m", str(n), {"first": True}) for n in range(rows)]

    def one(rng):
        scores = [np.array([float(right), 0.5]) for right in rng.random(rows) < accuracy]
        return intervals(measure(JudgeBench(), items, scores, resamples=200))["overall"]

    holds(one, accuracy, times=1500)


TAILS = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0),
    "log-normal": (lambda rng, size: np.exp(rng.normal(size=size)), np.exp(0.5)),
    "t of 3 degrees": (lambda rng, size: rng.standard_t(3, size=size), 0.0),
    "mostly zero": (
        lambda rng, size: (rng.random(size) < 0.3) * rng.choice([-1, 1, 1, 1], size=size), 0.15,
    ),
}


@pytest.mark.parametrize(("tail", "count"), [
    ("normal", 10), ("normal", 100), ("exponential", 10), ("exponential", 32),
    ("exponential", 100), ("log-normal", 32), ("log-normal", 100), ("t of 3 degrees", 10),
    ("t of 3 degrees", 32), ("mostly zero", 32), ("mostly zero", 100),
])
def test_means_of_long_tails(tail, count):
    draw, truth = TAILS[tail]
    holds(lambda rng: mean(draw(rng, count)), truth, times=3000)


def test_means_of_long_tails_with_clusters():
    def values(rng):
        return np.exp(0.7 * rng.normal(size=(50, 1)) + 0.7 * rng.normal(size=(50, 4)))

    names = np.repeat(np.arange(50), 4)
    holds(lambda rng: mean(values(rng).ravel(), names), np.exp(0.49))


@pytest.mark.parametrize(("runs", "prompts", "between"), [
    (3, 100, 0.0), (3, 100, 0.1), (3, 100, 0.5), (5, 200, 0.1), (8, 50, 0.2),
])
def test_two_levels(runs, prompts, between):
    def table(rng):
        return (
            between * rng.normal(size=(runs, 1)) + rng.normal(size=(1, prompts))
            + rng.normal(size=(runs, prompts))
        )

    holds(lambda rng: two_level(table(rng)), 0.0, times=2000)


@pytest.mark.parametrize(("runs", "prompts", "between"), [(3, 150, 0.0), (3, 150, 0.3),
                                                          (5, 150, 0.3)])
def test_two_levels_of_shares(runs, prompts, between):
    def table(rng, runs, prompts):
        level = 1 + between * rng.normal(size=(runs, 1)) + rng.normal(size=(1, prompts))
        return rng.random((runs, prompts)) < 1 / (1 + np.exp(-level))

    truth = table(np.random.default_rng(9), 2000, 2000).mean()
    holds(lambda rng: two_level(table(rng, runs, prompts), bounded=True), truth)


def resampled_aurocs(labels, scores, picked):
    """AUROCs ``[runs, draws]`` of rows drawn with replacement, all at once."""
    times = np.array([np.bincount(rows, minlength=len(labels)) for rows in picked])
    correct, incorrect = times[:, labels], times[:, ~labels]
    pairs = correct.sum(axis=1) * incorrect.sum(axis=1)
    beats = scores[:, labels, None] > scores[:, None, ~labels]
    return np.einsum("di,rij,dj->rd", correct, beats, incorrect, optimize=True) / pairs


@pytest.mark.parametrize("between", [0.0, 0.3])
def test_figures_over_runs(between):
    """AUROCs of three runs on the same questions, resampled together."""
    def runs(rng, count):
        labels = rng.random(count) < 0.5
        scores = labels + rng.normal(size=count) + 0.5 * rng.normal(size=(3, count))
        return labels, scores + between * rng.normal(size=(3, 1)) * labels

    def one(rng):
        labels, scores = runs(rng, 100)
        picked = rng.integers(100, size=(100, 100))
        draws = resampled_aurocs(labels, scores, picked)
        for own, drawn in zip(scores, draws, strict=True):
            assert drawn[0] == pytest.approx(auroc(labels[picked[0]], own[picked[0]]))
        return over_runs([auroc(labels, own) for own in scores], draws, 100)

    # The difference of two scores, of a correct and an incorrect answer, is normal.
    truth = norm.cdf(1 / np.sqrt(2.5 + between**2))
    holds(one, truth, times=200, most=0.99)


def test_holm_keeps_false_discoveries_rare():
    def any_found(rng):
        baseline = rng.normal(size=60)
        rows = {str(number): baseline + rng.normal(size=60) for number in range(9)}
        return any(one.adjusted_p < 0.05 for one in gains(rows, baseline).values())

    rng = np.random.default_rng(0)
    assert 0.01 <= np.mean([any_found(rng) for _ in range(400)]) <= 0.07
