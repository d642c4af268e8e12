"""Several reward models at once: sums computed by hand, costs that add up, and what must fit."""

import json
import logging

import pytest
import torch
from scipy.stats import chisquare

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.ensemble import RewardEnsemble
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.compatibility import check_vocabularies
from tests.cli.test_generate_command import (
    generate as command,
)
from tests.cli.test_generate_command import (
    read,
    refused,
    root,  # noqa: F401
    save_reward_model,
)
from tests.decoding.tables import TableScorer
from tests.decoding.test_generate import (
    PROMPTS,
    folders,  # noqa: F401
    make_policy,
    make_scorer,
)
from tests.decoding.test_toy_exactness import LENGTH, SEQUENCES, V, random_rewards, run
from tests.decoding.test_weights import GUIDED, guided_by, plain_greedy
from tests.fakes import CHARACTERS, character_tokenizer

WEIGHTS = [1.0, -0.5]


def two(folders, method):  # noqa: F811
    """Two reward models that disagree."""
    return [guided_by(folders, method, kind) for kind in ("llama", "gpt_neox")]


@pytest.mark.parametrize("control", [{"weight": 1.5}, {"target_kl": 0.4}])
@pytest.mark.parametrize("method", GUIDED)
def test_batched_and_cached_equals_the_plain_loop(folders, method, control):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=2.0)
    config = DecodingConfig(
        method=method, mode="greedy", top_k=5, max_new_tokens=10, batch_size=3, **control
    )
    scorers = two(folders, method)
    guide = build_method(config, RewardEnsemble(scorers, WEIGHTS))
    answers = [r.token_ids for r in generate(policy, tokenizer, PROMPTS, guide, config)]
    stop_ids = {tokenizer.eos_token_id}

    def plain(weights):
        return [
            plain_greedy(policy, scorers, weights, tokenizer.encode(prompt), config, stop_ids)
            for prompt in PROMPTS
        ]

    assert answers == plain(WEIGHTS)
    assert answers != plain([1.0, 0.5]), "the second reward model should matter"


@pytest.mark.parametrize("method", GUIDED)
def test_weight_zero_is_the_policy_alone(folders, method):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=2.0)

    def answers(name, scorer):
        config = DecodingConfig(method=name, top_k=5, seed=4, max_new_tokens=12)
        guide = build_method(config, scorer)
        return [r.token_ids for r in generate(policy, tokenizer, PROMPTS, guide, config)]

    silent = RewardEnsemble(two(folders, method), [0.0, 0.0])
    assert answers(method, silent) == answers("none", None)


@pytest.mark.parametrize("method", GUIDED)
def test_costs_add_up(folders, method):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=4.0)
    config = DecodingConfig(method=method, top_k=4, weight=0.3, max_new_tokens=10, seed=5)

    def costs(scorer):
        guide = build_method(config, scorer)
        return [r.cost for r in generate(policy, tokenizer, PROMPTS, guide, config)]

    scorer = guided_by(folders, method)
    # Half of a reward model twice is that reward model, at twice its cost.
    both = costs(RewardEnsemble([scorer, scorer], [0.5, 0.5]))
    for single, double in zip(costs(scorer), both, strict=True):
        assert double.new_tokens == single.new_tokens
        assert double.lm_calls == single.lm_calls
        for name in ("rm_calls", "rm_forwards", "rm_tokens"):
            assert getattr(double, name) == 2 * getattr(single, name) > 0


def test_rewards_are_the_weighted_sum(folders):  # noqa: F811
    ids, mask = torch.tensor([[0, 5, 6], [7, 8, 9]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    scorers = two(folders, "farma")
    ensemble = RewardEnsemble(scorers, [2.0, -0.25])
    first, second = (one.next_token(ids, mask)[:, : one.vocabulary_size] for one in scorers)
    summed = ensemble.next_token(ids, mask, ensemble.open())
    torch.testing.assert_close(summed, 2.0 * first - 0.25 * second)
    scorers = two(folders, "args")
    ensemble = RewardEnsemble(scorers, [2.0, -0.25])
    asked = torch.tensor([[3, 4], [5, 6]])
    first, second = (one.candidates(ids, mask, asked) for one in scorers)
    torch.testing.assert_close(
        ensemble.candidates(ids, mask, asked, ensemble.open()), 2.0 * first - 0.25 * second
    )


class Table(TableScorer):
    """A table with what an ensemble wants to know of a member."""

    tokenizer, template, position_limit, fingerprint = None, Template(), None, ""


def test_sampling_has_the_exact_distribution_of_the_sum():
    helpful, harmless = random_rewards(3), random_rewards(4)
    members = [
        Table(lambda p, values=values: sum(values[y] for y in SEQUENCES if y[: len(p)] == p),
              "vocabulary", V)
        for values in (helpful, harmless)
    ]
    config = DecodingConfig(top_k=0, max_new_tokens=LENGTH, weight=0.5)
    guide = Farma(RewardEnsemble(members, [1.0, -0.7]), config)
    batch = run(guide, config, lambda prefix: [0.3, 0.0, -0.3], rows=4000)
    seen, expected = dict.fromkeys(SEQUENCES, 0), []
    for row in batch:
        seen[tuple(row.token_ids)] += 1
    for y in SEQUENCES:
        p = float(len(batch))
        for i in range(LENGTH):
            first, second = (
                torch.tensor([one.reward((*y[:i], v)) for v in range(V)]) for one in members
            )
            scores = torch.tensor([0.3, 0.0, -0.3]) + 0.5 * (first - 0.7 * second)
            p *= float(scores.softmax(0)[y[i]])
        expected.append(p)
    assert chisquare(list(seen.values()), expected).pvalue > 1e-3


def test_limits_are_those_that_all_members_can_keep():
    small, large = Table(lambda p: 1.0, "vocabulary", 2), Table(lambda p: 1.0, "vocabulary", V)
    small.position_limit = 7
    ensemble = RewardEnsemble([large, small], WEIGHTS)
    assert (ensemble.vocabulary_size, ensemble.position_limit) == (2, 7)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], []])
def test_a_weight_for_each_reward_model(weights):
    table = Table(lambda p: 0.0, "vocabulary", V)
    with pytest.raises(ConfigError, match=f"one weight for each .*, got {len(weights)} for 2"):
        RewardEnsemble([table, table], weights)
    with pytest.raises(ConfigError, match="finite"):
        RewardEnsemble([table], [float("nan")])


class TestEveryMemberMustFit:
    def test_head(self, folders):  # noqa: F811
        mixed = [guided_by(folders, "farma"), guided_by(folders, "args")]
        for method, head in (("farma", "scalar"), ("args", "vocabulary")):
            with pytest.raises(MismatchError, match=f"{method!r} needs .* has a {head} head"):
                build_method(DecodingConfig(method=method), RewardEnsemble(mixed, WEIGHTS))

    @pytest.mark.parametrize("method", ["pargs", "cd", "genarm"])
    def test_training(self, folders, method):  # noqa: F811
        stranger = make_scorer(folders["llama"], GUIDED[method][0], "bradley_terry")
        members = [guided_by(folders, method), stranger]
        with pytest.raises(MismatchError, match="'bradley_terry'"):
            build_method(DecodingConfig(method=method), RewardEnsemble(members, WEIGHTS))

    def test_vocabulary(self, folders):  # noqa: F811
        members = two(folders, "farma")
        ensemble = RewardEnsemble(members, WEIGHTS)
        check_vocabularies(members[0].tokenizer, ensemble)
        members[1].tokenizer = character_tokenizer(CHARACTERS[::-1])
        with pytest.raises(MismatchError, match="must give every id the same token"):
            check_vocabularies(members[0].tokenizer, RewardEnsemble(members, WEIGHTS))

    def test_non_finite_rewards_of_one(self, folders):  # noqa: F811
        policy, tokenizer = make_policy()
        config = DecodingConfig(method="farma", max_new_tokens=4)
        members = two(folders, "farma")
        with torch.no_grad():
            embeddings = members[1].reward_model.carrier.get_input_embeddings()
            embeddings.weight[tokenizer.encode("z")] = float("nan")
        guide = build_method(config, RewardEnsemble(members, [1.0, 0.0]))
        results = list(generate(policy, tokenizer, PROMPTS, guide, config))
        assert "step 1 of row '3'" in results[3].error
        assert [result.finish_reason == "error" for result in results] == [0, 0, 0, 1, 0]

    def test_another_template_is_told(self, folders, caplog):  # noqa: F811
        members = [
            make_scorer(folders["llama"], "vocabulary", template=template)
            for template in (Template(), Template(prompt="Q: {prompt}"))
        ]
        with caplog.at_level(logging.WARNING):
            RewardEnsemble(members, WEIGHTS)
        assert "another template" in caplog.text


@pytest.mark.parametrize("method", ["best_of_n", "beam"])
def test_methods_that_take_one_reward_model(folders, method):  # noqa: F811
    ensemble = RewardEnsemble(two(folders, "args"), WEIGHTS)
    with pytest.raises(MismatchError, match=f"{method!r} takes one reward model, got 2"):
        build_method(DecodingConfig(method=method), ensemble)


class TestCommand:
    """`rewardsteer generate` with several reward models."""

    def run(self, root, tmp_path, *more, **options):  # noqa: F811
        save_reward_model(
            root / "policy", root / "arm", "vocabulary", objective="autoregressive"
        )
        return command(root, tmp_path / "y.jsonl", *more, **options)

    def test_two_models_with_weights(self, root, tmp_path):  # noqa: F811
        result = self.run(
            root, tmp_path, "--reward-model", root / "arm", "--weight", 1.0, "--weight", -0.5
        )
        assert result.exit_code == 0, result.output
        assert all(r.cost.rm_calls == 2 * r.cost.new_tokens for r in read(tmp_path / "y.jsonl"))
        settings = json.loads((tmp_path / "y.jsonl.settings.json").read_text())
        assert settings["reward_weights"] == [1.0, -0.5]
        assert settings["reward_model"] == f"{root / 'farma'}, {root / 'arm'}"
        assert settings["weight"] == 1.0
        again = self.run(
            root, tmp_path, "--resume", "--reward-model", root / "arm", "--weight", 1.0,
            "--weight", 0.5,
        )
        refused(again, "reward_weights ([1.0, -0.5] → [1.0, 0.5])")

    def test_schedule_and_target(self, root, tmp_path):  # noqa: F811
        scheduled = self.run(
            root, tmp_path, "--weight", 2, "--weight-schedule", "linear", "--weight-end", 0
        )
        assert scheduled.exit_code == 0, scheduled.output
        settings = json.loads((tmp_path / "y.jsonl.settings.json").read_text())
        assert (settings["weight"], settings["weight_end"]) == (2.0, 0.0)
        aimed = self.run(
            root, tmp_path, "--target-kl", 0.3, "--overwrite", reward_model="arm", method="genarm"
        )
        assert aimed.exit_code == 0, aimed.output

    @pytest.mark.parametrize(
        ("more", "options", "parts"),
        [
            (("--weight", 1, "--weight", 2), {}, ("got 2 for 1",)),
            (("--reward-model", "arm", "--weight", 1), {}, ("got 1 for 2",)),
            (("--reward-model", "plain"), {}, ("'farma'", "vocabulary head", "scalar head")),
            (("--reward-model", "other"), {}, ("so all need the policy's tokenizer",)),
            (("--reward-model", "arm"), {"method": "goal_filter"}, ("one reward model", "genarm")),
            (("--target-kl", 0.1), {"method": "best_of_n"}, ("--target-kl",)),
            (("--max-kl", 0.1), {"method": "best_of_n"}, ("--max-kl",)),
            (("--weight-end", 0.1), {}, ("weight_schedule", "weight_end")),
            ((), {"method": "genarm"}, ("'genarm'", "'autoregressive'", "'bradley_terry'")),
            ((), {"method": "cd", "reward_model": "plain"}, ("'cd'", "'partial'")),
        ],
    )
    def test_bad_input(self, root, tmp_path, more, options, parts):  # noqa: F811
        named = [root / word if word in ("arm", "plain", "other") else word for word in more]
        refused(self.run(root, tmp_path, *named, **options), *parts)
        assert list(tmp_path.iterdir()) == []
