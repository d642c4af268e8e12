"""Beam search over steps: against a plain implementation, rule by rule; costs; bad input."""

import asyncio
import json
import math
import random
from collections import defaultdict

import pytest
import torch
import typer
from torch.nn.functional import cosine_similarity
from typer.testing import CliRunner

from rewardsteer.cli.generate import generate_command
from rewardsteer.cli.group import Group
from rewardsteer.data.template import Template
from rewardsteer.decoding.answer import run as respond
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.strategies.beam import Beam
from rewardsteer.decoding.strategies.steps import Judged
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.goals.files import save_goals
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.checkpoint import CheckpointCard, fingerprint
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.records import Cost
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm

PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: ", "zz top"]
BY_GOAL = ("--set", "step_value=goal")
SETTINGS = {
    "method": "beam", "beam": 3, "branches": 2, "step_tokens": 5, "max_steps": 5,
    "max_new_tokens": 17, "step_separator": "\n", "top_k": 12, "temperature": 1.3, "weight": 2.0,
    "seed": 3,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: save_tiny(root / kind, kind, seed=7) for kind in ("llama", "gpt2")}


def make_policy(kind="llama", *, eos=3.0, newline=5.0, vocab_size=None):
    """Ends of texts and of steps come often enough for hypotheses to differ in both."""
    tokenizer = character_tokenizer(padding_side="left")
    policy = tiny_causal_lm(kind, vocab_size=vocab_size or len(tokenizer), seed=0)
    head = torch.nn.Linear(policy.lm_head.in_features, policy.lm_head.out_features)
    head.weight, head.bias.data = policy.lm_head.weight, torch.zeros(head.out_features)
    head.bias.data[tokenizer.eos_token_id] = eos
    head.bias.data[tokenizer.encode("\n")] = newline
    policy.set_output_embeddings(head)
    return policy.eval(), tokenizer


def make_scorer(folder, kind="scalar"):
    torch.manual_seed(3)
    model = RewardModel.from_base(folder, HeadConfig(kind=kind)).eval()
    return Scorer(model, character_tokenizer(), Template())


def make_goal(width=32, seed=1, **values):
    vectors = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
    return GoalState("good", vectors, Provenance(kind="mean", model_fingerprint=""), **values)


def settings(**values):
    return DecodingConfig(**{**SETTINGS, **values})


def run(folders, config, *, kind="llama", goal=None, prompts=PROMPTS, policy=None):
    policy, tokenizer = policy or make_policy(kind)
    method = build_method(config, make_scorer(folders[kind]), goal or make_goal())
    return list(generate(policy, tokenizer, prompts, method, config))


# --- the plain implementation ---------------------------------------------------------------------


def draw(logits, rng, config):
    best = sorted(range(len(logits)), key=lambda v: -logits[v])[: config.top_k]
    weights = [math.exp((logits[v] - logits[best[0]]) / config.temperature) for v in best]
    left = rng.random() * sum(weights)
    for token, weight in zip(best, weights, strict=True):
        left -= weight
        if left < 0:
            return token
    return best[-1]


@torch.no_grad()
def mean_likelihood(policy, prompt, response):
    log_p = policy(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
    return sum(
        float(log_p[len(prompt) + i - 1, v]) for i, v in enumerate(response)
    ) / len(response)


@torch.no_grad()
def cosine(scorer, goal, prompt, response):
    ids = torch.tensor([[*prompt, *response]])
    states = scorer.reward_model.backbone(input_ids=ids).last_hidden_state[0]
    if goal.keys is None:
        return float(cosine_similarity(states[-1], goal.vectors[0], dim=0))
    near = cosine_similarity(goal.keys, states[len(prompt) - 1][None]).topk(
        goal.provenance.neighbours
    )
    return float(cosine_similarity(states[-1], goal.vectors[near.indices].mean(0), dim=0))


@torch.no_grad()
def plain_step(policy, tokenizer, prompt, response, rng, config):
    response, begin = list(response), len(response)
    while True:
        logits = policy(torch.tensor([[*prompt, *response]])).logits[0, -1].tolist()
        token = draw(logits, rng, config)
        response.append(token)
        if token == tokenizer.eos_token_id or config.step_separator in tokenizer.decode([token]):
            break
        if len(response) - begin == config.step_tokens or len(response) == config.max_new_tokens:
            break
    return tuple(response)


def plain_search(policy, tokenizer, scorer, goal, name, prompt, config):
    """The search to a goal."""

    def score(response):
        value = mean_likelihood(policy, prompt, response)
        if config.weight:
            value += config.weight * cosine(scorer, goal, prompt, response)
        return value

    return plain_beam(policy, tokenizer, score, name, prompt, config)


def plain_beam(policy, tokenizer, score_of, name, prompt, config):
    """One row at a time, nothing cached, hypotheses as tuples in a dict of scores."""
    count = config.beam * config.branches
    rngs = [random.Random(f"{config.seed}/{sample}/{name}") for sample in range(count)]
    kept = {(): 0.0}

    def stopped(response):
        return response[-1:] == (tokenizer.eos_token_id,)

    def over(response):
        return stopped(response) or len(response) == config.max_new_tokens

    for turn in range(config.max_steps):
        live = [response for response in kept if not over(response)]
        parents = [response for response in live for _ in range(config.branches)]
        if turn == 0:
            parents = [()] * count
        pool = {response: score for response, score in kept.items() if over(response)}
        for parent, rng in zip(parents, rngs, strict=False):
            response = plain_step(policy, tokenizer, prompt, parent, rng, config)
            pool.setdefault(response, score_of(response))
        best = sorted(pool, key=lambda response: -pool[response])[: config.beam]
        if config.value_noise is not None:
            # Rewards alone, or likelihoods and w times a similarity.
            share = abs(config.weight) if "weight" in config.model_fields_set else 1.0
            apart = 1.6449 * share * config.value_noise * 2**0.5
            best = [response for response in best if pool[best[0]] - pool[response] <= apart]
        kept = {response: pool[response] for response in best}
        if all(over(response) for response in kept):
            break
    return list(next((r for r in kept if stopped(r)), next(iter(kept))))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("weight", [0.0, 2.0, -1.0])
def test_equals_the_plain_implementation(folders, kind, weight):
    policy, tokenizer = make_policy(kind)
    scorer, goal = make_scorer(folders[kind]), make_goal()
    kinds = set()
    for seed in range(3):
        config = settings(weight=weight, seed=seed)
        for prompt, result in zip(
            PROMPTS, run(folders, config, kind=kind, goal=goal), strict=True
        ):
            ids = tokenizer.encode(prompt)
            plain = plain_search(policy, tokenizer, scorer, goal, result.id, ids, config)
            assert result.token_ids == plain
            ended = plain[-1] == tokenizer.eos_token_id
            assert result.finish_reason == ("stop" if ended else "length")
            assert result.completion == tokenizer.decode(plain, skip_special_tokens=True)
            kinds.add((result.finish_reason, tokenizer.encode("\n")[0] in plain))
    assert len(kinds) > 1, "answers should end differently"


def test_goals_of_neighbours_see_the_prompt(folders):
    draws = torch.Generator().manual_seed(5)
    goal = GoalState(
        "near", torch.randn(6, 32, generator=draws),
        Provenance(kind="nearest", model_fingerprint="", neighbours=2),
        torch.randn(6, 32, generator=draws),
    )
    policy, tokenizer = make_policy()
    config, scorer = settings(weight=5.0), make_scorer(folders["llama"])
    for prompt, result in zip(PROMPTS, run(folders, config, goal=goal), strict=True):
        ids = tokenizer.encode(prompt)
        plain = plain_search(policy, tokenizer, scorer, goal, result.id, ids, config)
        assert result.token_ids == plain


# --- what the weight does -------------------------------------------------------------------------


def test_weight_zero_ignores_the_goal(folders):
    config = settings(weight=0.0)
    results = run(folders, config, goal=make_goal(seed=1))
    other = run(folders, config, goal=make_goal(seed=2))
    assert [r.token_ids for r in results] == [r.token_ids for r in other]
    assert all(r.cost.rm_calls == r.cost.rm_forwards == r.cost.rm_tokens == 0 for r in results)
    steered = run(folders, settings(weight=50.0), goal=make_goal(seed=1))
    assert [r.token_ids for r in results] != [r.token_ids for r in steered]


@pytest.mark.parametrize(("weight", "sign"), [(1000.0, 1), (-1000.0, -1)])
def test_a_large_weight_takes_the_most_similar_candidate(folders, weight, sign):
    policy, tokenizer = make_policy(eos=0.0, newline=0.0)
    scorer, goal = make_scorer(folders["llama"]), make_goal()
    config = settings(weight=weight, beam=1, branches=8, max_steps=1, step_tokens=4)
    disagree = 0
    for prompt, result in zip(
        PROMPTS, run(folders, config, goal=goal, policy=(policy, tokenizer)), strict=True
    ):
        ids = tokenizer.encode(prompt)
        drawn = {
            plain_step(
                policy, tokenizer, ids, (), random.Random(f"3/{sample}/{result.id}"), config
            )
            for sample in range(8)
        }
        assert len(drawn) > 1
        best = max(drawn, key=lambda one: sign * cosine(scorer, goal, ids, one))
        assert result.token_ids == list(best)
        likely = max(drawn, key=lambda one: mean_likelihood(policy, ids, one))
        disagree += best != likely
    assert disagree, "similarity and likelihood should rank some candidates differently"


def test_one_hypothesis_and_one_branch_is_plain_sampling(folders):
    """The one generator goes on from step to step, as it does in the loop of ``none``."""
    config = settings(beam=1, branches=1, max_steps=20)
    plain = settings(method="none")
    assert [r.token_ids for r in run(folders, config)] == [
        r.token_ids for r in run(folders, plain)
    ]
    short = settings(beam=1, branches=1, max_steps=1)
    for first, whole in zip(run(folders, short), run(folders, plain), strict=True):
        assert first.token_ids == whole.token_ids[: len(first.token_ids)]
        assert len(first.token_ids) <= 5


def test_greedy_with_one_candidate_is_the_greedy_answer(folders):
    config = settings(beam=1, branches=1, max_steps=20, mode="greedy")
    plain = settings(method="none", mode="greedy")
    assert [r.token_ids for r in run(folders, config)] == [
        r.token_ids for r in run(folders, plain)
    ]


def test_answers_do_not_depend_on_the_batch(folders):
    requests = [Request(id=f"r{i}", prompt=prompt) for i, prompt in enumerate(PROMPTS)]

    def answers(batch_size, requests):
        results = run(folders, settings(batch_size=batch_size), prompts=requests)
        return {
            r.id: (r.token_ids, r.cost.model_copy(update={"seconds": 0.0})) for r in results
        }

    assert answers(1, requests) == answers(5, requests[::-1]) == answers(64, requests)


# --- the search alone, with a scripted policy -----------------------------------------------------


class ScriptedSample:
    """Draws what slot ``index`` of its round draws: tokens 1 to 9, of which 5 ends a step, or 0,
    end-of-text."""

    aborted, origin, cost = False, None, Cost()

    def __init__(self, engine, index, tokens=(), turn=0):
        self.engine, self.index, self.turn = engine, index, turn
        self.token_ids, self.finish_reason = list(tokens), None
        self.log_probability = 0.0

    @property
    def length(self):
        return len(self.token_ids)

    async def extend(self, tokens=None, *, stop=None):
        longest = min(self.length + tokens, self.engine.longest)
        step, self.turn = self.engine.script[self.turn][self.index], self.turn + 1
        ended = False
        for token in step:
            assert not ended, f"{step} should have ended before {token}"
            self.token_ids.append(token)
            ended = token == 0 or self.length >= longest or (stop.text and token == 5)
        assert ended, f"{step} should go on"
        self.engine.drawn[self.turn - 1].add(self.index)
        if step[-1] == 0:
            self.finish_reason = "stop"
        elif self.length >= self.engine.longest:
            self.finish_reason = "length"

    def fork(self, index, rng):
        return ScriptedSample(self.engine, index, self.token_ids, self.turn)

    def abort(self):
        self.aborted = True


class Scripted:
    """An engine that follows a script."""

    stride = 1

    def __init__(self, script, longest):
        self.script, self.longest, self.drawn = script, longest, defaultdict(set)

    def start(self, prompt, index, config, **options):
        return ScriptedSample(self, index)


class Table(Beam):
    """A search with a score for every response; remembers what it was asked."""

    needs = "none"

    def __init__(self, score, **values):
        settings = {"beam": 2, "branches": 2, "step_tokens": 3, "max_steps": 4} | values
        super().__init__(None, DecodingConfig(method="beam", **settings))
        self.score, self.asked = score, []

    async def judge(self, samples, scorer):
        self.asked.append([tuple(one.token_ids) for one in samples])
        return [Judged(self.score(response), None) for response in self.asked[-1]]


def scripted(script, guide, longest=9):
    """Search one prompt; the script says what slot s of round t draws, token after token."""
    engine = Scripted(script, longest)
    outcome, _ = asyncio.run(respond(engine, None, Encoded("x", [7]), guide, guide.config))
    for turn, steps in enumerate(script):
        assert engine.drawn[turn] == set(range(len(steps))), "another number than the script has"
    return outcome.sample


def test_steps_end_at_the_separator_or_at_their_length():
    guide = Table(lambda r: r[0], beam=1, branches=3, max_steps=2)
    row = scripted([[[1, 2, 3], [9, 5], [5]], [[1, 5], [2, 2, 2], [5]]], guide)
    assert guide.asked == [
        [(1, 2, 3), (9, 5), (5,)], [(9, 5, 1, 5), (9, 5, 2, 2, 2), (9, 5, 5)]
    ]
    assert row.token_ids == [9, 5, 1, 5]
    assert row.finish_reason is None


def test_without_a_separator_steps_have_their_length():
    guide = Table(lambda r: r[0], beam=1, branches=1, max_steps=1, step_separator="")
    assert scripted([[[5, 5, 5]]], guide).token_ids == [5, 5, 5]


def test_an_end_of_text_finishes_and_competes():
    scores = {(1, 0): 5.0, (2, 5): 9.0, (3, 5): 1.0, (4, 5): 0.0, (2, 5, 6, 5): 4.0,
              (2, 5, 5): 6.0, (2, 5, 5, 0): 1.0, (2, 5, 5, 5): 8.0}
    guide = Table(scores.__getitem__, max_steps=3)
    row = scripted([[[1, 0], [2, 5], [3, 5], [4, 5]], [[6, 5], [5]], [[0], [5]]], guide)
    assert row.token_ids == [1, 0], "the better hypothesis 2 5 5 5 … has not finished"
    assert row.finish_reason == "stop"
    # Here the finished one is worse than two others and falls out.
    guide = Table(lambda r: 0.0 if 0 in r else sum(r), max_steps=2)
    row = scripted([[[1, 0], [2, 5], [3, 5], [4, 5]], [[5], [6, 5], [1, 5], [0]]], guide)
    assert row.token_ids == [4, 5, 6, 5]
    assert row.finish_reason is None


def test_it_ends_when_all_that_is_kept_has_finished():
    guide = Table(lambda r: 10.0 if 0 in r else 0.0, max_steps=9)
    row = scripted([[[1, 0], [2, 0], [3, 5], [4, 5]]], guide)  # a second round has no script
    assert (row.token_ids, row.finish_reason) == ([1, 0], "stop")


def test_equal_sequences_count_once():
    guide = Table(lambda r: sum(r), max_steps=2)
    row = scripted(
        [[[1, 5], [1, 5], [1, 5], [1, 5]], [[2, 5], [2, 5]]], guide  # one live hypothesis is left
    )
    assert guide.asked == [[(1, 5)], [(1, 5, 2, 5)]]
    assert row.token_ids == [1, 5, 2, 5]


def test_no_answer_is_longer_than_max_new_tokens():
    guide = Table(lambda r: sum(r), beam=1, branches=2, max_steps=9)
    row = scripted([[[1, 1, 1], [1, 1, 2]], [[1], [2]]], guide, longest=4)
    assert row.token_ids == [1, 1, 2, 2]
    assert row.finish_reason == "length"


# --- likelihoods and costs ------------------------------------------------------------------------


def test_samples_add_up_log_probabilities():
    policy, tokenizer = make_policy()
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    config = DecodingConfig(top_k=5, temperature=0.7, max_new_tokens=9)
    engine = TransformersEngine(policy, tokenizer)
    asked = [
        engine.start(Encoded(str(i), ids), 0, config, rng=random.Random(i % len(prompts)),
                     log_probabilities=i < len(prompts))
        for i, ids in enumerate([*prompts, prompts[0]])
    ]
    list(in_order([one.extend for one in asked], engine.room, engine.close, most=9))
    for row, prompt in zip(asked[:-1], prompts, strict=True):
        mean = mean_likelihood(policy, prompt, row.token_ids)
        assert row.log_probability == pytest.approx(mean * len(row.token_ids), abs=1e-4)
    assert asked[-1].log_probability is None
    assert asked[-1].token_ids == asked[0].token_ids


def test_costs_of_all_candidates_add_up(folders, monkeypatch):
    """Every token is read once, whatever was forked from it; the last of each step is read with
    what follows it."""
    drawn, original = [], TokenSample.extend

    async def spy(self, *args, **options):
        before = len(self.token_ids)
        await original(self, *args, **options)
        drawn.append((self, before, len(self.token_ids)))

    monkeypatch.setattr(TokenSample, "extend", spy)
    results = run(folders, settings(batch_size=4))
    for result in results:
        mine = [one for one in drawn if one[0].name == result.id]
        cost, prompt = result.cost, len(mine[0][0].prompt_ids)
        assert len(mine) > 6
        assert cost.new_tokens == len(result.token_ids)
        assert cost.lm_calls == cost.lm_forwards == sum(end - begin for _, begin, end in mine)
        # A first step reads its prompt; a later one begins with the last token before it.
        read = sum((end - begin) + (prompt - 1 if not begin else 0) for _, begin, end in mine)
        assert cost.lm_tokens == read
        # Each different candidate is asked about once, and read from where it was known.
        texts = {tuple(one.token_ids[:end]) for one, _, end in mine}
        assert cost.rm_calls == cost.rm_forwards == len(texts)
        assert cost.rm_tokens < sum(prompt + len(text) for text in texts)
        assert cost.seconds > 0
        assert result.reward is None


# --- bad input ------------------------------------------------------------------------------------


def test_tokens_unknown_to_the_reward_model(folders):
    """The policy has special tokens of its own, with a high chance."""
    size = len(character_tokenizer())
    policy, tokenizer = make_policy(vocab_size=size + 20)
    tokenizer.add_special_tokens({
        "additional_special_tokens": [f"<|{number}|>" for number in range(20)]
    })
    with torch.no_grad():
        policy.get_output_embeddings().bias[size:] = 4.0
    results = run(folders, settings(), policy=(policy, tokenizer))
    assert any(max(r.token_ids) >= size for r in results)



def test_no_goal(folders):
    with pytest.raises(MismatchError, match=r"'beam' needs a goal state .* as the goal"):
        build_method(settings(step_value="goal"), make_scorer(folders["llama"]))


def test_no_reward_model():
    with pytest.raises(MismatchError, match="needs a reward model, and there is none"):
        build_method(settings(), None, make_goal())


def test_goal_of_another_width_or_model(folders):
    with pytest.raises(MismatchError, match=r"has 31 numbers.* have 32"):
        build_method(settings(), make_scorer(folders["llama"]), make_goal(31))
    goal = GoalState("g", torch.ones(1, 32), Provenance(kind="mean", model_fingerprint="abc"))
    with pytest.raises(MismatchError, match="other weights"):
        build_method(settings(), make_scorer(folders["llama"]), goal)


@pytest.mark.parametrize(("beam", "branches"), [(1, 2), (2, 1)])
def test_greedy_with_several_candidates(folders, beam, branches):
    config = settings(mode="greedy", beam=beam, branches=branches)
    with pytest.raises(ConfigError, match=f"beam × branches = {beam} × {branches}.*greedy"):
        build_method(config, make_scorer(folders["llama"]), make_goal())


def test_other_methods_never_see_the_goal(folders):
    scorer = make_scorer(folders["llama"])
    assert build_method(DecodingConfig(method="best_of_n"), scorer, make_goal()).samples == 8


def test_non_finite_states_name_the_request(folders):
    policy, tokenizer = make_policy()
    method = build_method(settings(), make_scorer(folders["llama"]), make_goal())
    with torch.no_grad():
        embeddings = method.scorer.reward_model.carrier.get_input_embeddings()
        embeddings.weight[tokenizer.encode("z")] = float("nan")
    odd = Request(id="odd", prompt="zz top")
    even = Request(id="even", prompt="What is 7+8?")
    [alone] = generate(policy, tokenizer, [even], method, settings())
    assert alone.error is None
    failed, other = generate(policy, tokenizer, [odd, even], method, settings())
    assert "gave nan at step" in failed.error
    assert "of row 'odd'" in failed.error
    assert other.completion == alone.completion


class TestCommandLine:
    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("cli")
        base = save_tiny(root / "policy", seed=1)
        for name in ("rm", "bare"):
            torch.manual_seed(0)
            card = CheckpointCard(
                head=HeadConfig(kind="scalar"), objective="bradley_terry",
                template=Template().model_dump(),
            )
            model = RewardModel.from_base(base, HeadConfig(kind="scalar"))
            model.save_pretrained(root / name, character_tokenizer(), card)
        made = Provenance(kind="mean", model_fingerprint=fingerprint(root / "rm"))
        save_goals(root / "rm", {
            name: GoalState(name, make_goal(seed=i).vectors, made)
            for i, name in enumerate(("good", "bad"))
        })
        (root / "prompts.jsonl").write_text(json.dumps({"id": "p", "prompt": "zz top"}) + "\n")
        return root

    def invoke(self, root, output, *more, reward_model="rm", method="beam"):
        app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
        app.command("generate")(generate_command)
        app.command("other")(lambda: None)
        arguments = [
            "generate", "--model", root / "policy", "--reward-model", root / reward_model,
            "--method", method, "--prompts", root / "prompts.jsonl", "--output", output,
            "--max-new-tokens", 6, *more,
        ]
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def test_a_goal_beside_the_weights(self, root, tmp_path):
        output = tmp_path / "o.jsonl"
        options = ("--goal-name", "good", "--beam", 2, "--branches", 3, "--step-tokens", 2)
        result = self.invoke(root, output, *options)
        assert result.exit_code == 0, result.output
        answer = json.loads(output.read_text())
        assert answer["method"] == "beam"
        assert answer["cost"]["rm_calls"] > 6
        told = json.loads((tmp_path / "o.jsonl.settings.json").read_text())
        assert (told["goal"]["name"], told["beam"], told["step_tokens"]) == ("good", 2, 2)
        again = self.invoke(
            root, tmp_path / "2.jsonl", *options, "--goal", root / "rm" / "goal_states.safetensors"
        )
        assert again.exit_code == 0, again.output
        repeated = json.loads((tmp_path / "2.jsonl").read_text())
        assert repeated["token_ids"] == answer["token_ids"]

    @pytest.mark.parametrize(("more", "options", "message"), [
        (BY_GOAL, {}, "a name is needed to choose among them"),
        (("--goal-name", "ugly"), {}, "not 'ugly'"),
        (BY_GOAL, {"reward_model": "bare"}, "Expected goal states at"),
        (BY_GOAL, {"reward_model": "nowhere"}, "Expected a reward model folder"),
        (("--goal-name", "good"), {"method": "best_of_n"}, "'best_of_n' uses no goal state"),
    ])
    def test_bad_goals(self, root, tmp_path, more, options, message):
        result = self.invoke(root, tmp_path / "o.jsonl", *more, **options)
        assert result.exit_code != 0
        assert message in " ".join((result.output + str(result.exception)).split())
        assert not (tmp_path / "o.jsonl").exists()
