"""The comparison of process rewards with other values on held-out labels of steps."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[2] / "runs"))

from process import SEPARATOR, as_steps, at_ends, changes, controls, measure, table

from rewardsteer.data.step_tokens import step_lengths
from rewardsteer.evaluation.statistics import auroc_interval
from tests.fakes import character_tokenizer


def held_out(problems=24, altered=2, seed=0):
    """Altered solutions of four steps; from the first incorrect step on all are incorrect."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(problems):
        for number in range(altered):
            first = int(rng.integers(1, 4))
            rows.append({
                "problem": f"p{problem}", "correct": [f"step {at}" for at in range(4)],
                "altered": [f"step {at}" if at < first else f"slip {number}" for at in range(4)],
                "wrong": list(range(first, 4)),
            })
    return rows


def values_of(rows, knows, seed=1):
    """A value per step and one of the counterpart; higher where correct, by ``knows``."""
    rng = np.random.default_rng(seed)
    return [
        (knows * np.array([at not in row["wrong"] for at in range(4)] + [True])
         + rng.normal(size=5)).tolist()
        for row in rows
    ]


def test_areas_are_of_the_first_incorrect_step_with_intervals_by_problem():
    rows = held_out()
    values = {
        "process reward": values_of(rows, 2.0), "goal similarity": values_of(rows, 0.7, seed=2),
        "partial reward": values_of(rows, 0.0, seed=3),
    }
    figures = measure(rows, values | controls(rows, 0))
    assert figures.keys() == {
        "process reward", "goal similarity", "goal similarity, change", "partial reward",
        "partial reward, change", "control: random", "control: place", "control: length",
    }
    for name, own in values.items():
        labels, scores, groups, against = [], [], [], []
        for row, one in zip(rows, own, strict=True):
            first = row["wrong"][0]
            labels += [False] * first + [True]
            scores += [-value for value in one[: first + 1]]
            groups += [row["problem"]] * (first + 1)
            against += [(True, -one[first]), (False, -one[4])]
        found = figures[name]
        assert found["within"][0] == pytest.approx(roc_auc_score(labels, scores))
        assert found["within"] == list(auroc_interval(labels, scores, groups=groups))
        assert found["against"][0] == pytest.approx(roc_auc_score(*zip(*against, strict=True)))
    # What knows more of the steps ranks them better; what knows nothing is at chance.
    assert figures["process reward"]["within"][1] > figures["partial reward"]["within"][2]
    low, high = figures["partial reward"]["within"][1:]
    assert low < 0.5 < high
    gain = figures["goal similarity"]["within, process less this"]
    assert 0 < gain[1] < gain[0] < gain[2]
    # A first incorrect step comes after those that it is compared with.
    assert figures["control: place"]["within"][0] == pytest.approx(1.0, abs=0.2)
    assert figures["control: place"]["against"][0] == 0.5
    assert len(table(figures).splitlines()) == 2 + len(figures)


def test_a_change_is_from_the_step_before():
    assert changes([1.0, 3.0, 2.0, 5.0], first=2) == [1.0, 2.0, -1.0, 2.0]


def test_rows_to_train_on_label_every_step():
    [row] = held_out(problems=1, altered=1)
    correct, altered = as_steps(row)
    assert correct["labels"] == [True] * 4
    assert [at for at, label in enumerate(altered["labels"]) if not label] == row["wrong"]


class _Counting:
    """The value of a token is how many tokens of the response there are up to it."""

    tokenizer = character_tokenizer()

    def encode(self, prompts, completions):
        return [self._ids(one) for one in prompts], [self._ids(one) for one in completions]

    def _ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def token_scores_ids(self, prompt_ids, response_ids, *, batch_size, goal):
        return [
            type("Read", (), {
                "rewards": np.arange(1.0, len(ids) + 1),
                "similarities": -np.arange(1.0, len(ids) + 1),
            }) for ids in response_ids
        ]


def test_values_are_read_at_the_ends_of_steps():
    steps = [["ab", "cde"], ["f"]]
    rewards, similarities = at_ends(_Counting(), ["p", "q"], steps, goal="goal")
    texts = [SEPARATOR.join(one) for one in steps]
    # One token per character: a step ends with what separates it from the next one.
    assert rewards[0].tolist() == [len("ab" + SEPARATOR), len(texts[0])]
    assert rewards[1].tolist() == [1.0]
    assert similarities[0].tolist() == (-rewards[0]).tolist()
    ids = _Counting()._ids(texts[0])
    assert step_lengths(texts[0], [len("ab" + SEPARATOR), len(texts[0])], ids,
                        _Counting.tokenizer) == rewards[0].tolist()
