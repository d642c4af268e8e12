"""Batched, cached, left-padded decoding against the naive loop; costs; bad inputs."""

import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.records import Message
from tests.decoding.naive import naive_greedy
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny, tiny_causal_lm

KINDS = ["llama", "gpt_neox", "gpt2"]
PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: ", "zz top", "Who?"]
HEADS = {"farma": "vocabulary", "none": None, "args": "scalar", "pargs": "scalar",
         "best_of_n": "scalar"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: save_tiny(root / kind, kind, seed=7) for kind in KINDS}


def make_policy(kind="llama", *, eos_bias=0.0, vocab_size=None):
    tokenizer = character_tokenizer(padding_side="left")
    policy = tiny_causal_lm(kind, vocab_size=vocab_size or len(tokenizer), seed=0)
    if eos_bias:
        # End-of-text comes often enough that rows end at different steps.
        plain = policy.get_output_embeddings()  # its name depends on the version
        head = torch.nn.Linear(plain.in_features, plain.out_features)
        head.weight, head.bias.data = plain.weight, torch.zeros(head.out_features)
        head.bias.data[tokenizer.eos_token_id] = eos_bias
        policy.set_output_embeddings(head)
    return policy.eval(), tokenizer


def make_scorer(folder, kind, objective="", template=None):
    torch.manual_seed(3)
    model = RewardModel.from_base(folder, HeadConfig(kind=kind)).eval()
    return Scorer(model, character_tokenizer(), template or Template(), objective=objective)


def make_method(config, folders, kind="llama"):
    head = HEADS[config.method]
    objective = {"pargs": "partial"}.get(config.method, "")
    return build_method(config, head and make_scorer(folders[kind], head, objective))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["none", "farma", "args", "pargs"])
def test_equals_the_naive_loop(folders, kind, name):
    policy, tokenizer = make_policy(kind, eos_bias=2.0)
    config = DecodingConfig(
        method=name, mode="greedy", top_k=5, weight=1.5, max_new_tokens=12, batch_size=3
    )
    method = make_method(config, folders, kind)
    results = list(generate(policy, tokenizer, PROMPTS, method, config))
    assert [r.id for r in results] == ["0", "1", "2", "3", "4"]
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = tokenizer.encode(prompt)
        naive = naive_greedy(policy, method.scorer, ids, config, {tokenizer.eos_token_id})
        assert result.token_ids == naive
        stopped = naive[-1] == tokenizer.eos_token_id
        assert result.finish_reason == ("stop" if stopped else "length")
        assert result.completion == tokenizer.decode(naive, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["none", "farma", "args", "pargs", "best_of_n"])
def test_costs_are_exact(folders, name):
    policy, tokenizer = make_policy(eos_bias=4.0)
    config = DecodingConfig(
        method=name, top_k=4, weight=0.3, max_new_tokens=10, batch_size=5, n=3, seed=5
    )
    results = list(generate(policy, tokenizer, PROMPTS, make_method(config, folders), config))
    assert len({len(r.token_ids) for r in results}) > 1, "rows should end at different steps"
    for prompt, result in zip(PROMPTS, results, strict=True):
        cost, p, n = result.cost, len(prompt), len(result.token_ids)
        assert cost.new_tokens == n
        assert cost.seconds > 0
        if name == "best_of_n":
            assert cost.rm_calls == cost.rm_forwards == 3
            assert cost.rm_tokens >= 3 * p + n
            assert cost.lm_calls >= n + 2
            assert result.reward is not None
            continue
        assert (cost.lm_calls, cost.lm_forwards, cost.lm_tokens) == (n, n, p + n - 1)
        assert (cost.rm_calls, cost.rm_forwards, cost.rm_tokens) == {
            "none": (0, 0, 0),
            "farma": (n, n, p + n - 1),
            "args": (4 * n, n, p + 4 * n),
            "pargs": (4 * n, n, p + 4 * n),
        }[name]


@pytest.mark.parametrize("name", ["none", "farma", "args", "best_of_n"])
def test_samples_do_not_depend_on_the_batch(folders, name):
    policy, tokenizer = make_policy(eos_bias=3.0)
    requests = [Request(id=f"r{i}", prompt=prompt) for i, prompt in enumerate(PROMPTS)]

    def run(batch_size, requests):
        config = DecodingConfig(
            method=name, top_k=6, max_new_tokens=8, batch_size=batch_size, n=3, seed=1
        )
        method = make_method(config, folders)
        return {r.id: r.token_ids for r in generate(policy, tokenizer, requests, method, config)}

    assert run(1, requests) == run(2, requests[::-1]) == run(16, requests)


@pytest.mark.parametrize("name", ["farma", "args"])
@pytest.mark.parametrize("mode", ["greedy", "sample"])
def test_weight_zero_is_the_policy_alone(folders, name, mode):
    policy, tokenizer = make_policy(eos_bias=2.0)
    settings = {"mode": mode, "top_k": 5, "weight": 0.0, "temperature": 0.7, "seed": 4}

    def run(method):
        config = DecodingConfig(method=method, max_new_tokens=15, **settings)
        method = make_method(config, folders)
        return [r.token_ids for r in generate(policy, tokenizer, PROMPTS, method, config)]

    assert run(name) == run("none")


def test_best_of_one_is_the_policy_alone(folders):
    policy, tokenizer = make_policy(eos_bias=2.0)

    def run(method):
        config = DecodingConfig(method=method, n=1, max_new_tokens=8)
        method = make_method(config, folders)
        return [r.token_ids for r in generate(policy, tokenizer, PROMPTS, method, config)]

    assert run("best_of_n") == run("none")


def test_best_of_n_keeps_the_best(folders):
    policy, tokenizer = make_policy(eos_bias=2.0)
    config = DecodingConfig(method="best_of_n", n=6, max_new_tokens=8, batch_size=4)
    method = make_method(config, folders)
    best = list(generate(policy, tokenizer, PROMPTS, method, config))
    few = config.model_copy(update={"n": 2})
    worse = generate(policy, tokenizer, PROMPTS, build_method(few, method.scorer), few)
    for more, less in zip(best, worse, strict=True):
        # The first two samples are among the six; batches of another shape round differently.
        assert more.reward >= less.reward - 1e-5
    again = method.scorer.score(PROMPTS, [r.completion for r in best])
    assert again == pytest.approx([r.reward for r in best], rel=1e-4)


def test_template_of_the_checkpoint_is_used(folders):
    policy, tokenizer = make_policy()
    template = Template(prompt="Q: {prompt}", response=" {response}")
    config = DecodingConfig(method="farma", mode="greedy", max_new_tokens=5)
    method = build_method(config, make_scorer(folders["llama"], "vocabulary", template=template))
    [result] = generate(policy, tokenizer, ["ab"], method, config)
    ids = tokenizer.encode("Q: ab")
    assert result.token_ids == naive_greedy(policy, method.scorer, ids, config, {0})
    assert result.prompt == "ab"
    given = Request(id="x", prompt="ab", prompt_ids=ids)
    plain = build_method(config, make_scorer(folders["llama"], "vocabulary"))
    assert next(generate(policy, tokenizer, [given], plain, config)).token_ids == result.token_ids


def test_conversations_are_rendered(folders):
    policy, tokenizer = make_policy()
    config = DecodingConfig(mode="greedy", max_new_tokens=3)
    talk = [Message(role="user", content="hello")]
    [result] = generate(policy, tokenizer, [talk], build_method(config), config)
    assert "hello" in result.prompt


def test_an_empty_prompt_starts_a_text(folders):
    policy, tokenizer = make_policy()
    config = DecodingConfig(method="farma", mode="greedy", max_new_tokens=4)
    method = make_method(config, folders)
    results = list(generate(policy, tokenizer, ["", "a"], method, config))
    assert results[0].token_ids == naive_greedy(policy, method.scorer, [0], config, {0})


def test_padded_embeddings_and_unknown_tokens(folders):
    # The policy's embeddings go on for 20 rows after the tokenizer's last token.
    policy, tokenizer = make_policy(vocab_size=len(character_tokenizer()) + 20)
    for name in ("farma", "args"):
        config = DecodingConfig(method=name, mode="greedy", top_k=8, weight=5.0, max_new_tokens=6)
        method = make_method(config, folders)
        for result in generate(policy, tokenizer, PROMPTS, method, config):
            assert len(result.token_ids) > 0


@pytest.mark.parametrize("name", ["farma", "args"])
def test_reward_model_of_another_dtype(folders, name):
    policy, tokenizer = make_policy()
    config = DecodingConfig(method=name, mode="greedy", top_k=4, max_new_tokens=5)
    method = make_method(config, folders)
    method.scorer.reward_model.to(torch.bfloat16)
    assert all(len(r.token_ids) for r in generate(policy, tokenizer, PROMPTS, method, config))


class TestBadInput:
    """Every one is refused before the first forward pass."""

    def run(self, folders, prompts=PROMPTS, tokenizer=None, objective="", **settings):
        policy, own = make_policy()
        config = DecodingConfig(**{"mode": "greedy", "max_new_tokens": 4, **settings})
        return generate(policy, tokenizer or own, prompts, make_method(config, folders), config)

    def test_other_tokenizer(self, folders):
        with pytest.raises(MismatchError, match=r"holds other tokens than the .* best_of"):
            self.run(folders, method="farma", tokenizer=character_tokenizer(CHARACTERS[1:]))

    def test_k_larger_than_the_vocabulary(self, folders):
        with pytest.raises(ConfigError, match=r"top_k = 1000 exceeds .* vocabulary of"):
            self.run(folders, method="args", top_k=1000)

    def test_no_candidates(self, folders):
        with pytest.raises(ConfigError, match="top_k must be at least 1"):
            self.run(folders, method="args", top_k=0)

    def test_greedy_best_of_n(self, folders):
        with pytest.raises(ConfigError, match="greedy"):
            self.run(folders, method="best_of_n", n=3)

    @pytest.mark.parametrize(
        ("name", "head"), [("farma", "scalar"), ("args", "vocabulary"), ("pargs", "vocabulary")]
    )
    def test_wrong_head(self, folders, name, head):
        with pytest.raises(MismatchError, match=f"{name!r} needs a reward model with a"):
            build_method(DecodingConfig(method=name), make_scorer(folders["llama"], head))

    def test_pargs_with_another_objective(self, folders):
        scorer = make_scorer(folders["llama"], "scalar", "bradley_terry")
        with pytest.raises(MismatchError, match="'bradley_terry'"):
            build_method(DecodingConfig(method="pargs"), scorer)

    def test_pargs_with_an_unknown_objective_warns(self, folders, caplog):
        build_method(DecodingConfig(method="pargs"), make_scorer(folders["llama"], "scalar"))
        assert "does not say" in caplog.text

    def test_no_reward_model(self):
        with pytest.raises(MismatchError, match="needs a reward model, and there is none"):
            build_method(DecodingConfig(method="farma"))

    def test_unknown_method(self):
        with pytest.raises(ConfigError, match="Did you mean 'farma'"):
            build_method(DecodingConfig(method="frama"))

    def test_too_long(self, folders):
        with pytest.raises(DataError, match="'0' has 600 tokens"):
            self.run(folders, prompts=["a" * 600])

    def test_repeated_ids(self, folders):
        twice = [Request(id="x", prompt="a"), Request(id="x", prompt="b")]
        with pytest.raises(DataError, match="share the id 'x'"):
            self.run(folders, prompts=twice)

    @pytest.mark.parametrize("name", ["farma", "args"])
    def test_non_finite_rewards_name_step_and_row(self, folders, name):
        policy, tokenizer = make_policy()
        config = DecodingConfig(method=name, mode="greedy", top_k=4, max_new_tokens=4)
        method = make_method(config, folders)
        with torch.no_grad():
            embeddings = method.scorer.reward_model.carrier.get_input_embeddings()
            embeddings.weight[tokenizer.encode("z")] = float("nan")
        results = list(generate(policy, tokenizer, PROMPTS, method, config))
        assert "step 1 of row '3'" in results[3].error
        # Others fail only where they ask about that token themselves.
        for number, result in enumerate(results):
            assert result.error is None or f"of row '{number}'" in result.error
        assert sum(result.error is None for result in results) >= 3

    @pytest.mark.parametrize("error", [
        torch.OutOfMemoryError("full"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ])
    def test_out_of_memory_in_the_reward_model_is_that_of_one_response(
        self, folders, monkeypatch, error
    ):
        policy, tokenizer = make_policy()
        config = DecodingConfig(method="best_of_n", n=2, batch_size=2, max_new_tokens=4)
        method = make_method(config, folders)
        score, long = method.scorer.score_ids, tokenizer.encode(PROMPTS[2])

        def narrow(prompts, responses, **options):
            if len(prompts) > 1 or prompts[0] == long:
                raise error
            return score(prompts, responses, **options)

        plain = list(generate(policy, tokenizer, PROMPTS, method, config))
        monkeypatch.setattr(method.scorer, "score_ids", narrow)
        found = list(generate(policy, tokenizer, PROMPTS, method, config))
        assert "Out of memory while the reward model read a response alone" in found.pop(2).error
        del plain[2]
        assert [one.token_ids for one in found] == [one.token_ids for one in plain]

    def test_other_errors_are_not_taken_for_it(self, folders, monkeypatch):
        policy, tokenizer = make_policy()
        config = DecodingConfig(method="best_of_n", n=2, batch_size=2, max_new_tokens=4)
        method = make_method(config, folders)
        monkeypatch.setattr(method.scorer, "score_ids", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(generate(policy, tokenizer, PROMPTS, method, config))
