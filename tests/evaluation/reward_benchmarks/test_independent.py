"""Figures of random scores against the published definitions, written as loops over rows in files.

Rows are shuffled, subsets differ in size, and scores tie often.
"""

import itertools
import json
import random
from collections import defaultdict
from statistics import fmean

import numpy as np
import pytest

from rewardsteer.evaluation.reward_benchmarks.loading import load_benchmark
from rewardsteer.evaluation.reward_benchmarks.measuring import figures_of


@pytest.fixture
def rng():
    return random.Random(5)


def found(name, file, rows, scores, rng, **options):
    """Figures of scores by the item's id."""
    rng.shuffle(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark, items = load_benchmark(name, file, **options)
    return figures_of(benchmark, items, [np.array(scores[item.id], dtype=float) for item in items])


def same(figures, expected):
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-12), name


def test_rewardbench2(rng, tmp_path):
    rows, scores, points = [], {}, defaultdict(list)
    counts = {"Factuality": 9, "Precise IF": 4, "Math": 5, "Safety": 7, "Focus": 3}
    for subset, count in counts.items():
        for number in range(count):
            rows.append({"id": str(number), "prompt": "?", "subset": subset, "chosen": ["c"],
                         "rejected": ["r"] * 3})
            own = scores[f"{subset}/{number}"] = [rng.randint(0, 2) for _ in range(4)]
            points[subset].append((own[0] == max(own)) / own.count(max(own)))
    parts = {"ref": {}, "tied": {}}
    for kind, number in itertools.product(parts, range(30)):
        if (kind, number) in {("ref", 3), ("tied", 8)}:
            continue  # half of a pair is missing
        right = 1 if kind == "ref" else rng.randint(2, 4)
        wrong = rng.randint(1, 5)
        rows.append({"id": f"{kind}:{number}", "prompt": "?", "subset": "Ties",
                     "chosen": ["c"] * right, "rejected": ["r"] * wrong})
        good = [3 + rng.choice([0, 0, 0, 1])] * right if number % 3 else [
            3 + rng.random() for _ in range(right)]
        bad = [rng.choice([1, 2, 2.5, 3]) for _ in range(wrong)]
        scores[f"Ties/{kind}:{number}"] = good + bad
        parts[kind][number] = (max(good) - min(good), min(good) - max(bad))
    both = parts["ref"].keys() & parts["tied"].keys()
    spread, lead = np.array([parts["tied"][number] for number in both]).T
    least = np.minimum(lead, [parts["ref"][number][1] for number in both])
    with np.errstate(all="ignore"):
        margin = np.nan_to_num(np.tanh(least / spread - 1))
    assert (spread == 0).any()
    accuracy = {kind: fmean(one > 0 for _, one in own.values()) for kind, own in parts.items()}
    expected = {subset: fmean(own) for subset, own in points.items()} | {"Ties": (
        0.3 * accuracy["tied"] + 0.3 * accuracy["ref"] + 0.2 * (lead > spread).mean()
        + 0.2 * (least > spread).mean() + 0.01 * margin.mean()
    )}
    expected["average"] = fmean(expected.values())
    same(found("rewardbench2", tmp_path / "rows.jsonl", rows, scores, rng), expected)


def test_rm_bench(rng, tmp_path):
    rows, scores, pairs = [], {}, defaultdict(lambda: defaultdict(list))
    parts = {"chat": 5, "code": 9, "safety-refuse": 3, "safety-response": 8, "math": 4}
    for part, count in parts.items():
        domain = part.partition("-")[0]
        for number in range(count):
            rows.append({"id": f"{part}-{number}", "prompt": "?", "domain": part,
                         "chosen": ["c"] * 3, "rejected": ["r"] * 3})
            own = scores[f"{domain}/{part}-{number}"] = [rng.randint(0, 3) for _ in range(6)]
            for chosen, rejected in itertools.product(range(3), repeat=2):
                level = ("easy", "normal", "hard")[(chosen < rejected) - (chosen > rejected) + 1]
                pairs[domain][level].append(own[chosen] > own[3 + rejected])
    expected = {f"{domain}, {level}": fmean(own) for domain, levels in pairs.items()
                for level, own in levels.items()}
    levels = ("easy", "normal", "hard")
    expected |= {one: fmean(expected[f"{domain}, {one}"] for domain in pairs) for one in levels}
    expected |= {domain: fmean(expected[f"{domain}, {one}"] for one in levels) for domain in pairs}
    expected["average"] = fmean(expected[domain] for domain in pairs)
    same(found("rm-bench", tmp_path / "rows.json", rows, scores, rng), expected)


def test_ppe_best_of_k_by_all_choices(rng, tmp_path):
    rows, scores, expected = [], {}, defaultdict(list)
    for number, model in itertools.product(range(4), ("x", "y")):
        count = rng.choice([4, 6, 8])
        right = [True, False, *(rng.random() < 0.4 for _ in range(count - 2))]
        own = scores[f"GPQA/{number}/{model}"] = [rng.randint(0, 4) for _ in range(count)]
        mixed = [(one, other) for one, other in itertools.product(range(count), repeat=2)
                 if right[one] and not right[other]]
        pairs = [rng.sample(pair, 2) for pair in rng.sample(mixed, 3)]
        rows.append({"question_id": number, "model_name": model, "prompt": "?", "scores": right,
                     "sampled_conflict_pairs": pairs,
                     **{f"response_{one + 1}": "r" for one in range(count)}})
        for one, other in pairs:
            won = own[one] > own[other] if right[one] else own[other] > own[one]
            expected["GPQA"].append(won)
        expected["GPQA, AUC within rows"].append(
            fmean((np.sign(own[one] - own[other]) + 1) / 2 for one, other in mixed))
        for k in (1, 2, 4, 8):
            chosen = [[right[i] for i in some if own[i] == max(own[j] for j in some)]
                      for some in itertools.combinations(range(count), k)]
            if chosen:
                expected[f"GPQA, best of {k}"].append(fmean(map(fmean, chosen)))
    same(found("ppe", tmp_path / "PPE-GPQA-Best-of-K.jsonl", rows, scores, rng),
         {name: fmean(own) for name, own in expected.items()})


@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_processbench(threshold, rng, tmp_path):
    rows, scores, hits = [], {}, defaultdict(lambda: defaultdict(list))
    counts = {"gsm8k": 11, "math": 5, "olympiadbench": 8, "omnimath": 14}
    for subset, number in ((name, one) for name, count in counts.items() for one in range(count)):
        steps = rng.randint(1, 6)
        label = rng.choice([-1, rng.randrange(steps)]) if number > 1 else number - 1
        rows.append({"id": f"{subset}-{number}", "problem": "?", "steps": ["s"] * steps,
                     "label": label})
        own = scores[f"{subset}-{number}"] = [
            rng.choice([0.3, 0.5] if step == label else [0.5, 0.7, 0.9]) for step in range(steps)]
        first = next((step for step, value in enumerate(own) if value < threshold), -1)
        hits[subset]["correct" if label < 0 else "error"].append(first == label)
    expected = {f"{subset}, {kind}": fmean(own) for subset, kinds in hits.items()
                for kind, own in kinds.items()}
    for subset in counts:
        a, b = (expected[f"{subset}, {kind}"] for kind in ("error", "correct"))
        expected[f"{subset}, F1"] = 2 * a * b / (a + b) if a + b else 0.0
    expected["F1"] = fmean(expected[f"{subset}, F1"] for subset in counts)
    same(found("processbench", tmp_path / "rows.jsonl", rows, scores, rng, threshold=threshold),
         expected)
