"""Figures of a guide against a teacher: known cases, plain loops, and ratios by clusters."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from rewardsteer.evaluation.guide import figures, rank_correlation
from rewardsteer.evaluation.statistics import ratio, student_quantile


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 6))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), rng.normal(size=(40, 6)), rng


def law(log_p, rewards):
    scores = np.exp(log_p + rewards)
    return scores / scores.sum()


def test_figures_equal_plain_loops(numbers):
    log_p, teacher, rng = numbers
    student = teacher + rng.normal(size=teacher.shape)
    teacher[3, 2] = student[4, 1] = np.nan
    teacher[5] = np.nan
    groups = [str(index // 4) for index in range(40)]
    found = figures(log_p, teacher, student, groups, 1.5)
    lost, guidance, agrees, changed, ranks = [], [], [], [], []
    for row in range(40):
        known = ~np.isnan(teacher[row]) & ~np.isnan(student[row])
        if not known.any():
            continue
        p, u, q = log_p[row][known], 1.5 * teacher[row][known], 1.5 * student[row][known]
        aim = law(p, u)
        lost.append((aim * np.log(aim / law(p, q))).sum())
        guidance.append((aim * np.log(aim / law(p, 0 * u))).sum())
        agrees.append((p + u).argmax() == (p + q).argmax())
        changed.append((p + q).argmax() != p.argmax())
        ranks.append(kendalltau(u, q).statistic)
    assert found["guidance_lost"]["value"] == pytest.approx(sum(lost) / sum(guidance))
    assert found["best_agrees"]["value"] == pytest.approx(np.mean(agrees))
    assert found["changed_by_student"]["value"] == pytest.approx(np.mean(changed))
    assert found["rank_correlation"]["value"] == pytest.approx(np.mean(ranks))
    assert found["guidance_lost"]["count"] == 39
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())


def test_the_teacher_loses_nothing_and_the_policy_alone_everything(numbers):
    log_p, teacher, _ = numbers
    groups = [str(index % 10) for index in range(40)]
    same = figures(log_p, teacher, teacher + 3, groups, 2.0)
    assert same["guidance_lost"]["value"] == pytest.approx(0, abs=1e-9)
    assert same["best_agrees"]["value"] == same["rank_correlation"]["value"] == 1
    alone = figures(log_p, teacher, np.zeros_like(teacher), groups, 2.0)
    assert alone["guidance_lost"]["value"] == pytest.approx(1)
    assert alone["changed_by_student"]["value"] == 0
    assert np.isnan(alone["rank_correlation"]["value"])


def test_rank_correlation_counts_ties_as_scipy_does():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 3, (2, 30, 5)).astype(float)
    plain = [kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(
        rank_correlation(first, second, np.ones((30, 5), bool)), plain, equal_nan=True
    )


def test_the_error_of_a_ratio_is_that_of_a_jackknife():
    rng = np.random.default_rng(0)
    below = rng.lognormal(4, 1, size=12)  # long tails: a linearised error is smaller
    top = below * rng.beta(2, 3, size=12)
    left = np.array([np.delete(top, i).sum() / np.delete(below, i).sum() for i in range(12)])
    error = np.sqrt(11 / 12 * ((left - left.mean()) ** 2).sum())
    found = ratio(top, below)
    assert found.value == pytest.approx(top.sum() / below.sum())
    assert found.high - found.value == pytest.approx(student_quantile(0.975, 11) * error)
    alone = ratio(top, np.eye(12)[0])
    assert alone.value == pytest.approx(top.sum())
    assert np.isnan(alone.low), "all denominators are those of one cluster"


def test_intervals_of_a_ratio_cover_and_widen_with_clusters():
    rng, covered = np.random.default_rng(2), 0
    for _ in range(300):
        effects = rng.normal(size=12).repeat(5)
        below = rng.gamma(4.0, size=60)
        top = below * 0.4 + below * (0.1 * effects + 0.1 * rng.normal(size=60))
        found = ratio(top, below, [str(index // 5) for index in range(60)])
        covered += found.low <= 0.4 <= found.high
    assert 0.90 < covered / 300 < 0.985
    alone = ratio(top, below, [str(index) for index in range(60)])
    assert alone.high - alone.low < found.high - found.low
    assert np.isnan(ratio([], [], []).value)
