"""Ranking, filtering, votes and calibration on hand-made solutions, against scikit-learn."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from rewardsteer.decoding.strategies.early_rejection import crossings
from rewardsteer.evaluation.correctness import filtering, ranking, votes
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.evaluation.correctness.probability import calibrate
from rewardsteer.evaluation.correctness.run import evaluate_correctness
from rewardsteer.evaluation.correctness.scored import Benchmark, Question
from rewardsteer.evaluation.voting import vote
from rewardsteer.records import Solution

CHOICES = {"free", "risk", "best"}
QUICK = {"draws": 20, "orders": 3}
unhurried = settings(deadline=None)


def solution(key, number, values, answer="1"):
    """``values`` are rewards and similarities; None for a solution that was not scored."""
    known = {} if values is None else {
        "reward": values[-1], "token_rewards": values, "token_similarities": values,
        "token_count": len(values), "prompt_tokens": 2}
    return Solution(
        benchmark="b", question_id=key, sample=f"rs{number:03}", prompt=key, completion="c",
        predicted_answer=answer, is_correct=answer == "1", **known)


def question(key, *rows):
    return Question(key, [solution(key, i, *row) for i, row in enumerate(rows)])


def benchmark(questions):
    questions = sorted(questions, key=lambda one: one.key)
    missing = sum(one.reward is None for q in questions for one in q.solutions)
    return Benchmark("b", questions, 0, missing)


def simulated(count=40, samples=6, seed=0, length=10, noise=1.0):
    """Right solutions have higher values throughout; answers "1" are right."""
    rng = np.random.default_rng(seed)
    questions = []
    for q in range(count):
        rows = []
        for _ in range(samples):
            answer = "1" if rng.random() < 0.6 else str(rng.integers(2, 4))
            level = (0.5 if answer == "1" else -0.5) + noise * rng.normal()
            rows.append((np.tanh(level + 0.2 * rng.normal(size=length)).tolist(), answer))
        questions.append(question(f"q{q:03}", *rows))
    return benchmark(questions)


def changed(bench, update):
    """A copy in reverse order, with the fields that ``update`` gives for a solution."""
    return Benchmark("b", [
        Question(q.key, [s.model_copy(update=update(s)) for s in q.solutions[::-1]])
        for q in bench.questions[::-1]], 0, 0)


class TestRanking:
    def test_against_scikit_learn(self):
        bench = changed(simulated(), lambda s: {
            "model": {"rs000": "x", "rs001": "y"}.get(s.sample, ""),
            "token_similarities": [-value for value in s.token_similarities],
        })
        found = ranking.ranking(bench, CorrectnessConfig(**QUICK))
        labels = np.array([one.is_correct for one in bench.solutions])
        rewards = np.array([one.reward for one in bench.solutions])
        assert found["auroc_low"] < found["auroc"] < found["auroc_high"]
        for tail, sign in (("", 1), ("_similarity", -1)):
            precision = average_precision_score(labels, sign * rewards)
            assert found[f"auroc{tail}"] == pytest.approx(roc_auc_score(labels, sign * rewards))
            assert found[f"average_precision{tail}"] == pytest.approx(precision)
        assert set(found["auroc_by_model"]) == {"unknown", "x", "y"}
        models = np.array([one.model or "unknown" for one in bench.solutions])
        for name, figures in found["auroc_by_model"].items():
            own = models == name
            assert (figures["count"], figures["accuracy"]) == (own.sum(), labels[own].mean())
            assert figures["auroc"] == pytest.approx(roc_auc_score(labels[own], rewards[own]))
        both = [q for q in bench.questions if len(set(q.correct)) == 2]
        assert 0 < len(both) < 40
        assert found["questions_with_both"] == len(both)
        assert found["auroc_per_question"] == pytest.approx(
            np.mean([roc_auc_score(q.correct, q.rewards) for q in both]))

    def test_prefixes_carry_the_signal_where_it_is(self):
        rng = np.random.default_rng(1)
        questions = []
        for q in range(150):
            rows = []
            for answer in ("1", "2"):
                late = rng.normal(size=5) * 0.1 + (1 if answer == "1" else -1)
                rows.append(([*rng.normal(size=5).tolist(), *late.tolist()], answer))
            questions.append(question(f"q{q}", *rows))
        found = ranking.ranking(benchmark(questions), CorrectnessConfig(**QUICK))
        for points in found["auroc_by_percentile"].values():
            assert [point["percentile"] for point in points] == [k / 10 for k in range(11)]
            areas = [point["auroc"] for point in points]
            assert areas[:6] == pytest.approx([0.5] * 6, abs=0.1)
            assert areas[6:] == [1.0] * 5
            assert all(point["low"] <= point["auroc"] <= point["high"] for point in points)
        assert set(found["auroc_by_percentile"]) == {"reward", "similarity"}

    def test_prefix_index(self):
        assert [ranking.prefix_index(1, p) for p in (0, 0.5, 1.0)] == [0, 0, 0]
        assert [ranking.prefix_index(10, p) for p in (0, 0.1, 0.2, 0.55, 1.0)] == [0, 0, 1, 4, 9]

    def test_prefix_index_is_exact_at_tenths(self):
        """⌊n·p⌋ − 1 for p = k/10 as written, not as 0.7 rounds in binary."""
        wrong = [
            (n, k) for n in range(1, 400) for k in range(11)
            if ranking.prefix_index(n, k / 10) != max(n * k // 10 - 1, 0)]
        assert wrong == []


HAND = [
    question("a", ([0.9, 0.9, 0.1, 0.9], "1"), ([0.9, 0.8, 0.9], "2"), ([0.1, 0.9], "1")),
    question("b", ([0.9, 0.9], None), (None, "1")),
    question("c", ([0.9, 0.99], None), ([0.9, 0.3], "1")),
]
LEVELS = [0.0, 0.5, 0.85, 0.95]


def table(accuracy, before=None, generated=None):
    """A table of which only the choices' columns matter; the later ones save more."""
    accuracy, ones = np.asarray(accuracy, dtype=float), np.ones(len(accuracy))
    zeros, before = accuracy * 0, ones if before is None else np.asarray(before)
    made = zeros + 9 - np.arange(zeros.shape[1]) if generated is None else np.asarray(generated)
    return filtering.Filtered(
        accuracy, before, zeros, made, zeros, zeros, zeros.astype(bool), ones, 10 * ones)


values = st.floats(-1, 1) | st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])
answers = st.sampled_from([None, "1", "2", "3"])
solutions = st.tuples(st.lists(values, min_size=1, max_size=7) | st.none(), answers)
questions = st.lists(st.lists(solutions, min_size=1, max_size=5), min_size=1, max_size=3).map(
    lambda rows: [question(f"q{i}", *row) for i, row in enumerate(rows)])


class TestFiltering:
    @unhurried
    @given(st.lists(values, max_size=8), st.lists(values, max_size=6), st.integers(0, 10))
    def test_crossings_against_a_loop(self, series, thresholds, start):
        found = crossings(np.array(series), np.array(thresholds), start)
        for place, threshold in zip(found, thresholds, strict=True):
            below = [i for i in range(start, len(series)) if series[i] < threshold]
            assert place == (below[0] if below else len(series))

    def test_by_hand(self):
        found = filtering.filter_questions(HAND, LEVELS, "similarity", 1)
        expect = {
            "accuracy": [[1, 0.5, 1, 1], [1] * 4, [1, 0, 0, 0]],
            "dropped": [[0, 1, 2, 0], [0, 0, 0, 1], [0, 1, 1, 1]],
            "generated": [[9, 8, 7, 9], [2] * 4, [4] * 4],  # the crossing token is generated
            "read": [[15, 14, 13, 15], [4] * 4, [8] * 4],
            "kept_correct": [[2 / 3, 0.5, 1, 2 / 3], [0.5, 0.5, 0.5, 1], [0.5, 0, 0, 0]],
            "fallback": [[0, 0, 0, 1], [0] * 4, [0] * 4],
            "before": [1, 1, 1], "solutions": [3, 2, 2], "tokens": [9, 2, 4],
        }
        for name, rows in expect.items():
            np.testing.assert_allclose(getattr(found, name), rows, err_msg=name)

    def test_summary_by_hand(self):
        found = filtering.filter_questions(HAND, LEVELS, "reward", 1)
        figures = filtering.summarise(found, 2, 0.85, cost=0.1)
        expect = {
            "threshold": 0.85, "questions": 3, "filtered": 3 / 7, "tokens_saved": 2 / 15,
            "reward_model_tokens": 25 / 15, "tokens_saved_net": (2 - 2.5) / 15,
            "accuracy_before": 1.0, "accuracy": 2 / 3, "gain": -1 / 3,
            "kept_correct": 1.5 / 3, "all_filtered": 0, "tokens_per_question": 13 / 3,
        }
        assert {name: figures[name] for name in expect} == pytest.approx(expect)

    @unhurried
    @given(questions, st.integers(0, 3))
    def test_extreme_thresholds(self, found, start):
        result = filtering.filter_questions(found, [-1.0, 1.5], "similarity", start)
        for row, one in enumerate(found):
            assert result.dropped[row, 0] == 0
            assert result.accuracy[row, 0] == vote(one.answers, one.correct) == result.before[row]
            assert result.generated[row, 0] == sum(one.tokens) == result.tokens[row]
            short = [s for s in one.solutions if s.token_count <= start]  # unscored: no tokens
            assert result.fallback[row, 1] == (not short)
            assert result.dropped[row, 1] == (len(one.solutions) - len(short) if short else 0)
            if not short:
                assert result.accuracy[row, 1] == result.before[row]
                assert result.generated[row, 1] == result.tokens[row]
        assert filtering.summarise(result, 0, -1.0, 1)["tokens_saved"] == 0

    @unhurried
    @given(questions, st.lists(values, min_size=2, max_size=5), st.integers(0, 3))
    def test_higher_thresholds_drop_more(self, found, thresholds, start):
        levels = sorted(thresholds)
        for own in (own for one in found for own in one.solutions if own.token_rewards):
            series = np.array(own.token_rewards)
            assert (np.diff(crossings(series, np.array(levels), start)) <= 0).all()
        result = filtering.filter_questions(found, levels, "reward", start)
        for row in range(len(found)):
            fell = result.fallback[row]
            assert (np.diff(fell.astype(int)) >= 0).all()
            assert (np.diff(result.dropped[row][~fell]) >= 0).all()
            assert (np.diff(result.generated[row][~fell]) <= 0).all()

    def test_grid(self):
        bench = simulated(5)
        grid = filtering.threshold_grid(bench.questions, "similarity", CorrectnessConfig())
        lowest = [min(one.token_similarities[5:]) for one in bench.solutions]
        assert (grid[0], grid[-1]) == (min(lowest), max([*lowest, 0.0]))
        assert grid == sorted({0.0, *grid})


class TestChoices:
    @pytest.mark.parametrize(("rates", "count"), [
        ([0.101], 22), ([0.101] * 8, 22), ([0.01, 0.02, 0.11, 0.3], 44), ([0.0, 0.12, 0.05], 60),
    ])
    def test_risk_is_controlled(self, rates, count):
        loss, confidence, runs = 0.1, 0.9, 600
        rng = np.random.default_rng(0)
        lost = rng.random((runs, count, len(rates))) < np.array(rates)
        chosen = [filtering.choose_by_risk(table(~one), loss, confidence) for one in lost]
        broken = np.mean([column is not None and rates[column] > loss for column in chosen])
        assert broken <= 1 - confidence + 3 * np.sqrt(confidence * (1 - confidence) / runs)
        if rates[0] < 0.05:  # and it is no empty promise
            assert np.mean([column is not None for column in chosen]) > 0.5

    def test_risk_by_hand(self):
        kept = np.ones((22, 3))
        assert filtering.choose_by_risk(table(kept), 0.1, 0.9) == 2  # 0.9²² = 0.098
        assert filtering.choose_by_risk(table(kept[:21]), 0.1, 0.9) is None  # 0.9²¹ = 0.109
        # It saves most of those that pass, which need not be the highest.
        assert filtering.choose_by_risk(table(kept, None, [[9, 2, 5]] * 22), 0.1, 0.9) == 1
        kept[0, 1] = 0.5  # worse in any degree; what comes after is not tried
        assert filtering.choose_by_risk(table(kept), 0.1, 0.9) == 0
        kept[0] = 0.5
        assert filtering.choose_by_risk(table(kept), 0.1, 0.9) is None
        before = np.eye(22)[0]  # one loses, all others gain: a loss is a loss
        assert filtering.choose_by_risk(table(1 - before[:, None], before), 0.1, 0.9) is None

    def test_free(self):
        accuracy = [[1, 1, 0, 1], [0, 1, 0.5, 0]]
        for before, made, column in (
            ([1, 0], [10, 9, 2, 5], 3), ([1, 0], [10] * 4, None), ([1, 1], [10, 10, 2, 5], None)):
            assert filtering.choose_free(table(accuracy, before, [made] * 2)) == column
        assert filtering.choose_best(table(accuracy, [1, 0], [[9, 8, 2, 5]] * 2)) == 1

    def test_free_forgives_rounding(self):
        # Votes of 1/2 and 1/2 become 2/3 and 1/3: no loss, though floats say −3e-17.
        assert filtering.choose_free(table([[2 / 3], [1 / 3]], [0.5, 0.5], [[5], [5]])) == 0


class TestVotes:
    def test_all_samples_are_the_vote(self):
        bench, config = simulated(10, 5), CorrectnessConfig(windows=[99], adaptive=[1.0], **QUICK)
        found = bench.questions
        expected = np.mean([vote(q.answers, q.correct) for q in found])
        rows = votes.by_samples(found, config)
        assert [row["k"] for row in rows] == [1, 2, 3, 4, 5]
        assert rows[-1]["majority"] == pytest.approx(expected)
        assert rows[-1]["best_of"] == pytest.approx(
            np.mean([q.correct[int(np.argmax(q.rewards))] for q in found]))
        assert rows[-1]["pass"] == np.mean([any(q.correct) for q in found])
        assert rows[-1]["weighted"] == pytest.approx(np.mean([
            vote(q.answers, q.correct, 1 / (1 + np.exp(-np.array(q.rewards)))) for q in found]))
        curve = votes.vote_curve(found, config)
        assert [point["tokens_per_question"] for point in curve] == [10, 20, 30, 40, 50]
        # Ten tokens generated, and with the prompt's two twelve for the reward model.
        assert [point["net_tokens_per_question"] for point in curve] == [22, 44, 66, 88, 110]
        assert [curve[-1][way] for way in ("majority", "best_of", "weighted")] == pytest.approx(
            [rows[-1][way] for way in ("majority", "best_of", "weighted")])
        rules = votes.stopping_rules(found, config)
        assert [rule["rule"] for rule in rules] == ["ESC, window 99", "adaptive consistency, 1"]
        for rule in rules:
            assert [rule[name] for name in ("accuracy", "samples", "tokens_per_question")] == (
                pytest.approx([expected, 5, 50]))

    def test_unscored_solutions_vote_but_are_not_best(self):
        *_, row = votes.by_samples([question("a", (None, "1"), ([-9.0], "2"))], CorrectnessConfig())
        assert (row["majority"], row["weighted"], row["best_of"]) == (0.5, 0, 0)

    def test_at_equal_tokens(self):
        curve = [
            {"tokens_per_question": t, "majority": a, "net_tokens_per_question": 2 * t,
             "best_of": a + 0.1} for t, a in ((10, 0.2), (30, 0.6))]
        found = [votes.at_equal_tokens(curve, tokens) for tokens in (9, 10, 15, 30, 31)]
        assert found == [None, 0.2, pytest.approx(0.3), 0.6, None]  # no vote of more than there are
        assert votes.at_equal_tokens(curve, 30, "best_of") == pytest.approx(0.4)
        assert votes.at_equal_tokens(curve, 30, "weighted") is None

    def test_a_high_temperature_is_the_majority_and_a_low_one_the_best(self):
        bench, config = simulated(30, 5), CorrectnessConfig(**QUICK)
        found = votes.with_all_samples(bench.questions, config, 1e12)
        assert found["tempered"] == pytest.approx(found["majority"])
        found = votes.with_all_samples(bench.questions, config, 1e-3)
        assert found["tempered"] == pytest.approx(found["best_of"])

    @pytest.mark.parametrize(("noise", "low", "high"), [(0.01, 0, 1), (100, 2, 11)])
    def test_the_temperature_suits_the_reward(self, noise, low, high):
        """Rewards that are right most often decide alone, those that know nothing do not count."""
        rng = np.random.default_rng(0)
        bench = changed(simulated(60, 7), lambda s: {
            "reward": 0.5 * s.is_correct + noise * rng.normal()})
        rewards = [s.reward for s in bench.solutions]
        assert low <= votes.fit_temperature(bench.questions) / np.std(rewards) <= high

    def test_only_what_was_measured(self):
        """Without answers no votes, without rewards no best of k, without tokens no costs."""
        config = CorrectnessConfig(**QUICK)
        answers = {"predicted_answer": None}
        rewards = {"reward": None, "token_rewards": None, "token_similarities": None}
        for absent, gone, stays in (
            (answers, {"majority", "weighted"}, "best_of"),
            (rewards, {"best_of", "weighted"}, "majority"),
        ):
            bench = changed(simulated(20, 3), lambda _, absent=absent: absent | {"token_count": 0})
            found = evaluate_correctness({"b": bench}, {}, config)["b"]
            assert stays in found["by_samples"][-1]
            for way in gone:
                assert way not in found["by_samples"][-1]
                assert f"{way}_accuracy" not in found
            assert "tokens_per_solution" not in found
            for rule in found.get("stopping", []):
                assert rule.keys() == {
                    "rule", "accuracy", "accuracy_low", "accuracy_high", "samples",
                }
        assert "no labelled solution has a reward" in found["undefined"]


def test_calibration_of_known_probabilities():
    rng = np.random.default_rng(0)
    halves = [[question(f"{half}{q}", *(
        ([0.5, 0.5, 0.5, p], "1" if rng.random() < p else "2") for p in rng.random(5).tolist()
    )) for q in range(400)] for half in "vt"]
    found = calibrate(*halves, "reward", CorrectnessConfig())
    assert [one["percentile"] for one in found] == [0.25, 0.5, 0.75, 1.0]
    assert found[-1]["expected_calibration_error"] < 0.05
    assert found[-1]["brier"] == pytest.approx(1 / 6, abs=0.02)  # ∫ p(1 − p) dp
    for early in found[:3]:  # nothing to see yet: as good as the constant
        assert early["brier"] == pytest.approx(early["brier_constant"])
    assert found[-1]["brier_constant"] == pytest.approx(0.25, abs=0.01)
    assert calibrate([question("a", (None,))], halves[1], "reward", CorrectnessConfig()) == []


class TestEvaluate:
    CONFIG = CorrectnessConfig(loss=0.3, confidence=0.7, start=2, **QUICK)

    def run(self, bench, **more):
        return evaluate_correctness({"b": bench}, {}, self.CONFIG, **more)["b"]

    def test_keys_and_json(self):
        sampled, greedy, seen = simulated(), simulated(samples=1), []
        found = evaluate_correctness(
            {"b": sampled}, {"b": greedy, "a": greedy}, self.CONFIG, announce=seen.append)
        assert seen == list(found) == ["a", "b"]
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        both = found["b"]
        assert (both["questions"], both["solutions"], both["greedy"]["solutions"]) == (40, 240, 40)
        assert "filtering" not in found["a"]  # one solution a question: nothing to vote on
        assert both["majority_accuracy"] == both["by_samples"][-1]["majority"]
        for record in both["filtering"].values():
            assert {"sweep", *CHOICES} <= set(record)
        assert both["filtering"]["similarity"]["published"]["threshold"] == 0
        assert [*both["calibration"], "auroc" in both["greedy"]] == ["reward", "similarity", True]

    @settings(unhurried, max_examples=5)
    @given(st.integers(1, 4))
    def test_small_sets_are_json_too(self, count):
        unscored = [question(f"q{i}", (None, "1"), (None, "2")) for i in range(8 * count)]
        for bench in (simulated(count, 2, seed=count), benchmark(unscored)):
            json.dumps(self.run(bench), allow_nan=False)

    def test_split_by_key(self):
        bench, part = simulated(200), simulated(150)
        chosen, tested = ({q.key for q in half} for half in bench.split(0.5, 0))
        assert not chosen & tested
        assert (len(chosen | tested), 70 < len(chosen) < 130) == (200, True)
        fewer, other = ({q.key for q in part.split(0.5, seed)[0]} for seed in (0, 1))
        assert other != fewer == chosen & {q.key for q in part.questions}

    def test_thresholds_come_from_validation_questions(self):
        bench = simulated(80)
        chosen, tested = ({q.key for q in half} for half in bench.split(0.5, 0))
        def chosen_after(turned):  # the levels to try come from test values, never from labels
            spoilt = {"token_similarities": [-0.9] * 9 + [1.0]} if turned == chosen else {}
            found = self.run(changed(bench, lambda s: spoilt | {
                "is_correct": not s.is_correct} if s.question_id in turned else {}))
            return {name: one["threshold"] for name, one in found["filtering"][
                "similarity"].items() if name in CHOICES}

        own, test, validation = map(chosen_after, (set(), tested, chosen))
        assert set(own) == CHOICES
        assert test == own != validation

    def test_baseline_is_paired_by_key(self):
        bench, rng = simulated(noise=0.8), np.random.default_rng(0)
        same = changed(bench, lambda _: {})
        found = self.run(bench, baseline={"b": same})["against_baseline"]
        assert found["reward"] == found["similarity"] == {"gain": 0, "low": 0, "high": 0}
        noise = changed(bench, lambda s: {
            "reward": None if s.sample == "rs000" else float(rng.normal())})
        found = self.run(bench, baseline={"b": noise})["against_baseline"]
        theirs = {(s.question_id, s.sample): s.reward for s in noise.scored}
        ours = [s for s in bench.solutions if s.sample != "rs000"]
        expected = np.subtract(*(roc_auc_score([s.is_correct for s in ours], values) for values in (
            [s.reward for s in ours], [theirs[s.question_id, s.sample] for s in ours])))
        assert found["solutions"] == 200
        assert found["reward"]["gain"] == pytest.approx(expected)
        assert found["reward"]["low"] < expected < found["reward"]["high"]

    def test_the_published_filter_is_applied_to_all_questions(self):
        bench = simulated(40)
        record = self.run(bench)["filtering"]["similarity"]["published"]
        assert record["questions"] == 40
        # By hand: a solution is dropped at its first similarity below 0, after the first two.
        dropped = kept = 0
        for one in bench.questions:
            lows = [min(s.token_similarities[2:]) < 0 for s in one.solutions]
            dropped += 0 if all(lows) else sum(lows)
            kept += len(lows)
        assert record["filtered"] == pytest.approx(dropped / kept)
        assert 0 < record["filtered"] < 1

    def test_filters_stand_beside_best_of_n_and_votes(self):
        found = self.run(simulated(40))
        chosen = found["filtering"]["reward"]["best"]
        votes_of_test = found["test_votes"]
        assert chosen["questions"] == votes_of_test["questions"]
        for way in ("best_of", "weighted"):
            assert chosen[f"{way}_accuracy"] == pytest.approx(votes_of_test[way])
        assert chosen["net_tokens_per_question"] > chosen["tokens_per_question"]
        # The reward model processes about as much again: twice a vote's tokens were not measured.
        assert "majority_at_equal_net_tokens" not in chosen
        assert 0 < chosen["best_of_at_equal_net_tokens"] <= 1
        assert found["vote_temperature"] > 0
        assert {"tempered", "tempered_low"} <= votes_of_test.keys()

    def test_what_few_questions_leave_out_is_named(self):
        found = self.run(simulated(1))
        assert found["filtering"]["similarity"].keys() == {"published"}
        assert "questions on both sides of the split" in found["left_out"]
        assert "left_out" not in self.run(simulated(40))
        assert "several solutions" in self.run(simulated(samples=1))["left_out"]
