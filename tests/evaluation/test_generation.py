"""Methods × prompts on tiny models: figures, budgets, resume, refusals; preference accuracy."""

import json
import math

import numpy as np
import pytest
import torch

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.evaluation.budget import Budget
from rewardsteer.evaluation.divergence import response_kl
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.generation import compare
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.preference import evaluate_preference
from rewardsteer.evaluation.record_files import read_records
from rewardsteer.evaluation.statistics import difference_p_value, holm, paired_difference
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.reports.runs import write_runs_page
from tests.fakes import tiny_causal_lm


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tokenizer = build_tokenizer()
    policy = tiny_causal_lm(vocab_size=len(tokenizer))
    policy.save_pretrained(folder / "base")
    scorers = {}
    for kind in ("scalar", "vocabulary"):
        head = HeadConfig(kind=kind)
        model = RewardModel.from_base(folder / "base", head)
        template = Template().model_dump(mode="json")
        card = CheckpointCard(head=head, template=template)
        model.save_pretrained(folder / kind, tokenizer, card)
        scorers[kind] = load_scorer(folder / kind)
    return folder, policy, tokenizer, scorers


def entries(scorers):
    options = {"max_new_tokens": 6, "batch_size": 3, "top_k": 4}
    return [
        Entry("none", DecodingConfig(method="none", **options)),
        Entry("farma w=1", DecodingConfig(method="farma", **options), scorers["vocabulary"]),
        Entry("args", DecodingConfig(method="args", **options), scorers["scalar"]),
    ]


REQUESTS = [Request(id=str(i), prompt=f"{i % 10}+{i // 2}=") for i in range(10)]


def test_kl_divergences_from_the_policy(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    options = {"max_new_tokens": 6, "batch_size": 3, "top_k": 4}
    several = [
        *entries(scorers),
        Entry("best", DecodingConfig(method="best_of_n", n=3, **options), scorers["scalar"]),
        Entry("farma w=0", DecodingConfig(method="farma", weight=0, **options),
              scorers["vocabulary"]),
    ]
    judge = Judge(scorers["scalar"])
    found = compare(several, shared, REQUESTS, judge, tmp_path, kl_prompts=3)
    assert found["none"]["kl"] == 0
    assert found["farma w=0"]["kl"] == pytest.approx(0, abs=1e-9)
    assert found["best"]["kl"] == found["best"]["kl_bound"] == math.log(3) - 2 / 3
    records = read_records(tmp_path / "farma_w=1.jsonl")
    guide = several[1]
    expected = np.mean([
        response_kl(
            policy, build_method(guide.config, guide.scorer),
            tokenizer(records[key].generation.prompt)["input_ids"],
            records[key].generation.token_ids, guide.config,
        )
        for key in ("0", "1", "2")
    ])
    assert found["farma w=1"]["kl"] == pytest.approx(expected)
    assert "kl_low" not in found["farma w=1"]  # of three prompts
    assert found["args"]["kl"] > 0
    with pytest.raises(ConfigError, match="within a budget is not known"):
        compare(several, shared, REQUESTS, judge, tmp_path / "b", kl_prompts=3,
                budget=Budget("tokens", 100))
    assert not (tmp_path / "b").exists()


def test_figures_and_costs(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    judge = Judge(scorers["scalar"], {"ones": lambda g: g.completion.count("1")})
    summary = compare(entries(scorers), shared, REQUESTS, judge, tmp_path)
    assert list(summary) == ["none", "farma w=1", "args"]
    assert json.loads((tmp_path / "summary.json").read_text())["methods"] == summary
    assert summary["none"]["reward_gain"] == 0.0
    assert summary["none"]["rm_calls_per_token"] == 0
    assert summary["farma w=1"]["rm_calls_per_token"] == 1
    assert summary["args"]["rm_calls_per_token"] == 4
    records = read_records(tmp_path / "args.jsonl")
    rewards = scorers["scalar"].score(
        [r.generation.prompt for r in records.values()],
        [r.generation.completion for r in records.values()],
    )
    assert summary["args"]["reward"] == pytest.approx(rewards.mean(), abs=1e-6)
    assert "ones_stderr" in summary["args"]


def test_surprise_tokens_and_intervals(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    compare(
        entries(scorers), shared, REQUESTS, Judge(scorers["scalar"]), tmp_path,
        baseline="farma w=1",
    )
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["baseline"] == "farma w=1"
    summary = content["methods"]
    records = {
        label: list(read_records(tmp_path / f"{label.replace(' ', '_')}.jsonl").values())
        for label in summary
    }
    one = max(records["args"], key=lambda record: len(record.generation.token_ids))
    assert len(one.generation.token_ids) > 1
    ids, total = tokenizer(one.generation.prompt)["input_ids"], 0.0
    for token in one.generation.token_ids:
        with torch.no_grad():
            total += float(policy(torch.tensor([ids])).logits[0, -1].log_softmax(0)[token])
        ids.append(token)
    surprise = -total / len(one.generation.token_ids)
    assert one.metrics["surprise"] == pytest.approx(surprise, abs=1e-4)
    sizes = [
        sum(p.numel() for p in model.parameters())
        for model in (scorers["scalar"].reward_model, policy)
    ]
    cost = one.generation.cost
    tokens = cost.lm_tokens + sizes[0] / sizes[1] * cost.rm_tokens
    assert one.extra == {"equivalent_tokens": pytest.approx(tokens)}
    for label, rows in records.items():
        figures = summary[label]
        assert figures["seconds_per_response"] == pytest.approx(
            np.mean([row.generation.cost.seconds for row in rows])
        )
        assert figures["reward_low"] < figures["reward"] < figures["reward_high"]
        gain = paired_difference(
            [row.metrics["reward"] for row in rows],
            [row.metrics["reward"] for row in records["farma w=1"]],
        )
        found = [figures[f"reward_gain{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx(list(gain))
    assert summary["farma w=1"]["reward_gain"] == 0 != summary["none"]["reward_gain"]
    assert content["intervals"] == "95 % intervals over 10 prompts"
    assert "reward_gain_p" not in summary["farma w=1"]
    rewards = {
        label: [row.metrics["reward"] for row in rows] for label, rows in records.items()
    }
    others = [label for label in rewards if label != "farma w=1"]
    alone = [difference_p_value(rewards[label], rewards["farma w=1"]) for label in others]
    assert [summary[label]["reward_gain_p"] for label in others] == pytest.approx(holm(alone))
    assert "kl_bound" not in summary["none"]


def test_at_equal_budgets_each_method_keeps_the_best_that_it_can_afford(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    config = DecodingConfig(max_new_tokens=6, batch_size=3, top_k=4)
    guided = config.model_copy(update={"method": "farma"})
    table = [
        Entry("none", config, scorers["scalar"]),  # which it does not use
        Entry("best", config.model_copy(update={"method": "best_of_n"}), scorers["scalar"]),
        Entry("farma w=1", guided, scorers["vocabulary"], sweep="farma"),
        Entry("farma w=2", guided.model_copy(update={"weight": 2.0}), scorers["vocabulary"],
              sweep="farma"),
    ]
    budget = Budget("tokens", 100)
    compare(
        table, shared, REQUESTS, Judge(scorers["scalar"]), tmp_path, budget=budget
    )
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["sweeps"] == {"farma": ["farma w=1", "farma w=2"]}
    summary = content["methods"]
    assert summary["none"]["draws"] == 1
    assert summary["best"]["kl_bound"] == pytest.approx(
        math.log(summary["best"]["draws"]) - 1 + 1 / summary["best"]["draws"]
    )
    for entry in table[1:]:
        draws = int(summary[entry.label]["draws"])
        assert draws > 1
        # What the budget buys is near it, from below up to the luck of the later rounds.
        assert 0.6 * 100 < summary[entry.label]["budget_used"] < 1.1 * 100
        rounds = []
        for seed in range(draws):
            alone = entry.config.model_copy(update={"seed": seed, "n": 1})
            method = build_method(alone, entry.scorer)
            rounds.append(list(generate(policy, tokenizer, REQUESTS, method, alone)))
        place = tmp_path / f"{entry.label.replace(' ', '_')}.jsonl"
        for record, *several in zip(read_records(place).values(), *rounds, strict=True):
            rewards = entry.scorer.score_ids(
                [tokenizer(one.prompt)["input_ids"] for one in several],
                [entry.scorer.close_response(one.token_ids) for one in several],
            )
            best = several[int(np.argmax(rewards))]
            assert record.generation.token_ids == best.token_ids
            assert record.generation.reward == pytest.approx(rewards.max(), abs=1e-5)
            assert record.generation.cost.lm_tokens == sum(one.cost.lm_tokens for one in several)
            assert record.extra["draws"] == draws
    lines = (tmp_path / "draws" / "best.jsonl").read_text().splitlines()
    assert len(lines) == summary["best"]["draws"] * len(REQUESTS)


def test_known_answers_are_the_first_draws_of_a_budget(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    config = DecodingConfig(max_new_tokens=6, batch_size=3, top_k=4)
    table = [
        Entry("none", config),
        Entry("best", config.model_copy(update={"method": "best_of_n"}), scorers["scalar"]),
        Entry("farma", config.model_copy(update={"method": "farma"}), scorers["vocabulary"]),
    ]

    def run(out, **options):
        figures = compare(
            table, shared, REQUESTS, Judge(scorers["scalar"]), tmp_path / out, **options
        )
        answers = {one.label: read_records(tmp_path / out / f"{one.label}.jsonl") for one in table}
        return figures, answers

    _, known = run("known")
    plain, without = run("without", budget=Budget("tokens", 100))
    reused, with_known = run("with", budget=Budget("tokens", 100), known=tmp_path / "known")
    for one in table:
        assert plain[one.label]["draws"] == reused[one.label]["draws"]
        for name, answer in without[one.label].items():
            other = with_known[one.label][name].generation
            assert (answer.generation.token_ids, answer.generation.reward) == (
                other.token_ids, other.reward
            )
    # Only what was not generated again took the same time; best of n draws single responses.
    seconds = {
        label: [one.generation.cost.seconds for one in answers.values()]
        for label, answers in known.items()
    }
    again = [one.generation.cost.seconds for one in with_known["none"].values()]
    assert again == seconds["none"]
    lines = (tmp_path / "with" / "draws" / "farma.jsonl").read_text().splitlines()
    first = [json.loads(line) for line in lines[: len(REQUESTS)]]
    assert [one["generation"]["cost"]["seconds"] for one in first] == seconds["farma"]


def test_a_budget_resumes_with_the_same_draws(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    table = [entries(scorers)[1]]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # Time is measured anew by a resumed run, yet the number of draws stays what it was.
    first = compare(
        table, shared, REQUESTS, Judge(scorers["scalar"]), whole,
        budget=Budget("seconds", 0.3),
    )
    assert first["farma w=1"]["draws"] > 1
    drawn = (whole / "draws" / "farma_w=1.jsonl").read_text().splitlines(keepends=True)
    answered = (whole / "farma_w=1.jsonl").read_text().splitlines(keepends=True)
    (cut / "draws").mkdir(parents=True)
    (cut / "draws" / "farma_w=1.jsonl").write_text("".join(drawn[:-1]))
    (cut / "farma_w=1.jsonl").write_text("".join(answered[:2]))
    again = compare(
        table, shared, REQUESTS, Judge(scorers["scalar"]), cut,
        budget=Budget("seconds", 0.3),
    )
    assert len((cut / "farma_w=1.jsonl").read_text().splitlines()) == len(REQUESTS)
    assert again["farma w=1"]["draws"] == first["farma w=1"]["draws"]
    assert again["farma w=1"]["reward"] == pytest.approx(first["farma w=1"]["reward"], abs=1e-5)


class Referee:
    """Stands in for a language model: the longer response is better."""

    model = "referee"

    def ask(self, pair):
        longer = len(pair.response) - len(pair.baseline)
        if longer == 0:
            return "Verdict: tie", ""
        return f"Verdict: {'A' if (longer < 0) == pair.baseline_first else 'B'}", ""


def test_win_rates_join_the_figures(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    judge = Judge(scorers["scalar"], pairs=Referee())
    summary = compare(entries(scorers), shared, REQUESTS, judge, tmp_path)
    assert "win_rate" not in summary["none"]
    base = read_records(tmp_path / "none.jsonl")
    score = 0.0
    for name, record in read_records(tmp_path / "args.jsonl").items():
        longer = len(record.generation.completion) - len(base[name].generation.completion)
        score += 0.5 * (1 + np.sign(longer))
    assert summary["args"]["win_rate"] == pytest.approx(score / len(REQUESTS))
    assert json.loads((tmp_path / "summary.json").read_text())["methods"] == summary


def test_resume_after_a_kill_gives_the_same_records(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    judge = Judge(scorers["scalar"])
    compare(entries(scorers), shared, REQUESTS, judge, tmp_path / "whole")
    compare(entries(scorers)[:1], shared, REQUESTS, judge, tmp_path / "cut")
    place = tmp_path / "cut" / "none.jsonl"
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join(lines[:2]) + lines[2][:40])  # torn in the third line
    compare(entries(scorers), shared, REQUESTS, judge, tmp_path / "cut")
    for name in ("none", "farma_w=1", "args"):
        whole = read_records(tmp_path / "whole" / f"{name}.jsonl")
        cut = read_records(tmp_path / "cut" / f"{name}.jsonl")
        assert whole.keys() == cut.keys()
        for key, record in whole.items():
            assert record.generation.token_ids == cut[key].generation.token_ids
            assert record.metrics == pytest.approx(cut[key].metrics, abs=1e-5)


def test_refusals(world, tmp_path):
    _, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    judge = Judge(scorers["scalar"])
    compare(entries(scorers)[:1], shared, REQUESTS, judge, tmp_path)
    with pytest.raises(DataError, match="other prompts"):
        compare(entries(scorers)[:1], shared, REQUESTS[:2], judge, tmp_path)
    with pytest.raises(DataError, match="labels"):
        compare(entries(scorers)[:1] * 2, shared, REQUESTS, judge, tmp_path / "x")
    one = entries(scorers)[0]
    twins = [Entry(label, one.config) for label in ("a b", "a/b")]
    with pytest.raises(DataError, match="a b, a/b"):
        compare(twins, shared, REQUESTS, judge, tmp_path / "x")
    with pytest.raises(ConfigError, match="'other' is none of"):
        compare([one], shared, REQUESTS, judge, tmp_path / "x", baseline="other")
    with pytest.raises(MismatchError, match="judge"):
        compare(
            entries(scorers)[:1], shared, REQUESTS, Judge(scorers["vocabulary"]),
            tmp_path / "x",
        )


def test_preference_accuracy_counts_by_hand(world, tmp_path):
    _, _, tokenizer, scorers = world
    source = {"name": "arithmetic", "options": {"rows": 40}}
    prepare(DataConfig(source=source, drop_overlap=False), tokenizer, tmp_path / "data")
    figures = evaluate_preference(scorers["scalar"], tmp_path / "data")
    from rewardsteer.data.store import load_set

    rows = load_set(tmp_path / "data", "test", "full")
    right = 0
    for row in rows:
        texts = [row["chosen"], row["rejected"]]
        chosen, rejected = scorers["scalar"].score([row["prompt"]] * 2, texts)
        right += chosen > rejected
    assert figures["all"]["accuracy"] == pytest.approx(right / len(rows))
    assert figures["all"]["accuracy_low"] < figures["all"]["accuracy"]
    source["options"]["rows"] = 5
    other = DataConfig(source=source, template={"response": " {response}"}, drop_overlap=False)
    spaced = build_tokenizer()
    spaced.add_tokens([" "])
    prepare(other, spaced, tmp_path / "other")
    with pytest.raises(MismatchError, match="another response template"):
        evaluate_preference(scorers["scalar"], tmp_path / "other")


def test_methods_that_the_judge_guides_are_marked_and_judged_again(world, tmp_path):
    folder, policy, tokenizer, scorers = world
    shared = ComparedPolicy.loaded(policy, tokenizer)
    other = load_scorer(folder / "scalar")
    other.fingerprint = "another model"
    judge = Judge(scorers["scalar"], second=other)
    swept = [
        *entries(scorers)[:2],
        *(
            Entry(
                f"args w={weight}", one.config.model_copy(update={"weight": weight}), one.scorer,
                sweep="args",
            )
            for one in entries(scorers)[2:] for weight in (0.5, 2.0)
        ),
    ]
    summary = compare(swept, shared, REQUESTS, judge, tmp_path)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["judged_by_guide"] == ["args w=0.5", "args w=2.0"]
    assert content["weights"] == {"args w=0.5": 0.5, "args w=2.0": 2.0}
    for figures in summary.values():  # the same weights under another name
        assert figures["second_reward"] == pytest.approx(figures["reward"], abs=1e-6)
        assert "second_reward_gain_low" in figures
    # Another reward model of the same weights is the same judge; one that draws nothing guides not.
    twin = load_scorer(folder / "scalar")
    twin.fingerprint = scorers["scalar"].fingerprint = "known"
    assert judge.guides(twin)
    assert not judge.guides(None)
    assert not judge.guides(scorers["vocabulary"])
    write_runs_page([tmp_path], tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert ">args w=2.0 †<" in html
    assert "Gold and proxy by weight of guidance: args" in html
    # Four prompts are too few to find a peak and to test it.
    assert content["peaks"] == {}
    assert "second judge&#39;s gain (95 %)" in html
