"""Best of n from recorded samples against all subsets; curves, peaks, files, the command."""

import itertools
import json

import numpy as np
import pytest

from rewardsteer.cli.main import app
from rewardsteer.errors import DataError
from rewardsteer.evaluation.overoptimization import (
    Recorded,
    best_of_n_bound,
    best_of_n_value,
    chance_of_choice,
    gold_of,
    measured_kl,
    overoptimization,
    weight_peaks,
)
from rewardsteer.records import Cost, EvalRecord, Generation, Solution
from tests.reports.results import write_lines


def plain_value(rewards, values, n):
    """Every subset is drawn once; ties share."""
    found = []
    for subset in itertools.combinations(range(len(rewards)), n):
        top = max(rewards[i] for i in subset)
        found.append(np.mean([values[i] for i in subset if rewards[i] == top]))
    return float(np.mean(found))


def test_best_of_n_is_the_mean_over_all_subsets():
    rng = np.random.default_rng(0)
    for _ in range(60):
        count = int(rng.integers(1, 9))
        rewards = rng.integers(0, 4, size=count).astype(float).tolist()  # with ties
        values = rng.normal(size=count).tolist()
        for n in range(1, count + 1):
            assert best_of_n_value(rewards, values, n) == pytest.approx(
                plain_value(rewards, values, n), abs=1e-12
            )
    assert best_of_n_value(rewards, rewards, count) == pytest.approx(max(rewards))


def test_many_samples_stay_exact():
    rewards = np.arange(5000.0)
    chance = chance_of_choice(rewards, 1024)
    assert chance.sum() == pytest.approx(1, abs=1e-9)
    assert (chance[:1023] == 0).all()
    assert chance[-1] == pytest.approx(1024 / 5000, rel=1e-9)  # the best is chosen when drawn
    assert (np.diff(chance) >= 0).all()


@pytest.mark.parametrize(("rewards", "n", "says"), [
    ([1.0, float("nan")], 1, "NaN"), ([1.0], 2, "from 1 to the 1 samples, got 2"),
    ([1.0], 0, "got 0"),
])
def test_what_cannot_be_chosen_from_is_refused(rewards, n, says):
    with pytest.raises(DataError, match=says):
        chance_of_choice(rewards, n)
    with pytest.raises(DataError, match="a value per reward"):
        best_of_n_value([1.0], [1.0, 2.0], 1)


def test_the_measured_divergence_nears_its_bound_and_is_less_with_repeated_texts():
    rng = np.random.default_rng(1)
    rewards, texts = rng.normal(size=4000), [str(i) for i in range(4000)]
    for n in (1, 2, 8):
        assert measured_kl(texts, rewards, n) == pytest.approx(best_of_n_bound(n), abs=5e-3)
    few = [str(i % 3) for i in range(4000)]
    same = np.array([float(text) for text in few])
    # Three texts with known rewards: the best of 8 has a law in closed form.
    share = np.bincount([int(text) for text in few]) / 4000
    chosen = np.diff(np.concatenate([[0], np.cumsum(share)]) ** 8)
    exact = float(np.sum(chosen * np.log(chosen / share)))
    assert measured_kl(few, same, 8) == pytest.approx(exact, abs=5e-3)
    for count in (2, 3, 5):
        for n in (1, 2, 8, 50):
            assert measured_kl(texts[:count], rewards[:count], n) <= best_of_n_bound(n) + 1e-12


def planted(prompts, samples, seed=0):
    """The proxy is gold up to a point; what it likes most is worth least."""
    rng, found = np.random.default_rng(seed), {}
    for number in range(prompts):
        proxy = rng.normal(size=samples)
        gold = np.where(proxy > 1.2, -3.0, proxy) + rng.normal(size=samples) / 5
        found[str(number)] = Recorded([f"{number} {i}" for i in range(samples)], proxy, gold)
    return found


def test_overoptimisation_is_found_where_it_was_planted():
    content = overoptimization(planted(60, 32))
    curve = content["curve"]
    assert [row["n"] for row in curve] == [1, 2, 4, 8, 16, 32]
    assert all(row["prompts"] == 60 for row in curve)
    proxy = [row["proxy"] for row in curve]
    assert proxy == sorted(proxy)
    assert curve[0]["gold_gain"] == pytest.approx(0, abs=1e-12)
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-12)
    assert content["peak"]["n"] < 32
    assert content["peak"]["change_high"] < 0
    honest = {key: Recorded(one.texts, one.proxy, np.asarray(one.proxy) + 1)
              for key, one in planted(60, 32).items()}
    assert overoptimization(honest)["peak"]["n"] == 32


def test_prompts_of_different_numbers_of_samples():
    content = overoptimization(planted(8, 4) | {"x": Recorded(["a", "b"], [1, 2], [1, 0])})
    assert [(row["n"], row["prompts"]) for row in content["curve"]] == [(1, 9), (2, 9), (4, 8)]
    assert "peak" not in content  # too few prompts to find and to test it
    with pytest.raises(DataError, match="at least two samples"):
        overoptimization({"x": Recorded(["a"], [1.0], [1.0])})


def guided(gains, prompts=60, gold="second_reward"):
    """Records of one sweep: the gold value of each weight is a prompt's own plus the gain."""
    rng, found = np.random.default_rng(0), {}
    own = rng.normal(size=prompts)
    for weight, gain in gains.items():
        noise = rng.normal(size=prompts) / 5
        found[f"w={weight:g}"] = [
            EvalRecord(
                generation=Generation(
                    id=str(i), prompt="?", completion="!", method="farma", token_ids=[1],
                    cost=Cost(new_tokens=1),
                ),
                metrics={"reward": weight, gold: float(own[i] + gain + noise[i])},
            ) for i in range(prompts)
        ]
    return found


def test_the_peak_over_weights_is_found_where_it_was_planted():
    falls = guided({0.5: 0.3, 1.0: 1.0, 2.0: -0.5})
    # Records may lie in another order; prompts are paired by their ids.
    falls["w=2"].reverse()
    sweeps, weights = {"farma": list(falls)}, {"w=0.5": 0.5, "w=1": 1.0, "w=2": 2.0}
    peak = weight_peaks(falls, sweeps, weights)["farma"]
    assert (peak["weight"], peak["largest"]) == (1.0, 2.0)
    assert peak["change"] == pytest.approx(-1.5, abs=0.2)
    assert peak["change_high"] - peak["change_low"] < 0.5
    assert peak["change_high"] < 0
    rises = guided({0.5: 0.0, 1.0: 0.5, 2.0: 1.0}, gold="accuracy")
    assert weight_peaks(rises, sweeps, weights)["farma"]["weight"] == 2.0
    assert weight_peaks(guided({0.5: 0.3, 1.0: 1.0, 2.0: 0}, prompts=12), sweeps, weights) == {}
    assert weight_peaks(guided({0.5: 0.3, 1.0: 1.0, 2.0: 0}, gold="x"), sweeps, weights) == {}
    assert gold_of(["reward", "accuracy", "second_reward"]) == "second_reward"


def scored(place, prompts, of):
    write_lines(place, [
        Solution(benchmark="b", question_id=key, sample=str(i), prompt="?", completion=text,
                 reward=float(getattr(one, of)[i]), is_correct=bool(one.gold[i] > 0))
        for key, one in prompts.items() for i, text in enumerate(one.texts)
    ])
    return place


def test_the_command_reads_two_score_files_and_the_report_shows_them(tmp_path, capsys):
    prompts = planted(40, 8)
    proxy, gold = (scored(tmp_path / f"{of}.jsonl", prompts, of) for of in ("proxy", "gold"))
    arguments = ["evaluate", "overoptimization", "--proxy", str(proxy)]
    app([*arguments, "--gold", str(gold), "--out", str(tmp_path / "a")], standalone_mode=False)
    content = json.loads((tmp_path / "a" / "overoptimization.json").read_text())
    direct = overoptimization({f"b/{key}": one for key, one in prompts.items()})
    assert content["curve"][-1]["gold"] == pytest.approx(direct["curve"][-1]["gold"])
    assert "<svg" in (tmp_path / "a" / "overoptimization.svg").read_text()
    assert "best of n, 320 samples of 40 prompts" in " ".join(capsys.readouterr().out.split())
    app([*arguments, "--out", str(tmp_path / "b")], standalone_mode=False)
    labels = json.loads((tmp_path / "b" / "overoptimization.json").read_text())
    assert labels["gold"] == "is_correct"
    assert 0 <= labels["curve"][0]["gold"] <= 1
    from rewardsteer.reports.runs import write_runs_page

    write_runs_page([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert html.count("Gold and proxy of best of n") >= 2
    rows = gold.read_text().splitlines()
    gold.write_text("\n".join([rows[0].replace('"completion":"0 0"', '"completion":"other"')]))
    with pytest.raises(SystemExit):
        app([*arguments, "--gold", str(gold), "--out", str(tmp_path / "c")], standalone_mode=False)
    assert "has another text" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
