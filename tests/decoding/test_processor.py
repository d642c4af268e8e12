"""Guides inside transformers' own generate()."""

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.processor import GuideProcessor, padding_of
from rewardsteer.errors import ConfigError, NonFiniteError
from tests.decoding.naive import naive_greedy
from tests.decoding.test_generate import (  # noqa: F401
    PROMPTS,
    folders,
    make_method,
    make_policy,
    make_scorer,
)


def library(policy, tokenizer, processor, prompts=PROMPTS, **options):
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    rows = policy.generate(
        **inputs, logits_processor=[processor], pad_token_id=tokenizer.pad_token_id, **options
    )
    return rows[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("name", ["farma", "args"])
def test_equals_our_loop(folders, kind, name):  # noqa: F811
    policy, tokenizer = make_policy(kind, eos_bias=2.0)
    config = DecodingConfig(
        method=name, mode="greedy", top_k=5, weight=1.5, max_new_tokens=12
    )
    method = make_method(config, folders, kind)
    ours = [r.token_ids for r in generate(policy, tokenizer, PROMPTS, method, config)]
    processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
    for _ in range(2):  # one processor serves one call after the other
        theirs = library(policy, tokenizer, processor, max_new_tokens=12, do_sample=False)
        for a, b in zip(ours, theirs, strict=True):
            assert b[: len(a)] == a
            assert set(b[len(a) :]) <= {tokenizer.pad_token_id}


def test_caches_are_incremental(folders):  # noqa: F811
    policy, tokenizer = make_policy()
    config = DecodingConfig(method="farma", weight=0.1)
    method = make_method(config, folders)
    processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
    library(policy, tokenizer, processor, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    reads = processor._session.usage(0)
    assert reads == (6, 6, len(PROMPTS[0]) + 5, 6, 0)


@pytest.mark.parametrize("name", ["farma", "args"])
def test_beams_are_reordered(folders, name):  # noqa: F811
    policy, tokenizer = make_policy()
    config = DecodingConfig(method=name, weight=0.5, top_k=8)
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    method = make_method(config, folders)
    processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
    together = library(policy, tokenizer, processor, **options)
    for row in range(3 * len(PROMPTS)):
        calls, forwards, tokens, *_ = processor._session.usage(row)
        assert forwards == 6
        # A beam that takes another's place takes over what was read of it.
        assert tokens == len(PROMPTS[row // 3]) + (5 if name == "farma" else calls)
    for prompt, row in zip(PROMPTS, together, strict=True):
        fresh = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
        [alone] = library(policy, tokenizer, fresh, [prompt], **options)
        assert row[: len(alone)] == alone


def test_padding_that_also_begins_texts(folders):  # noqa: F811
    policy, _ = make_policy()
    config = DecodingConfig(method="farma", mode="greedy", max_new_tokens=5)
    method = make_method(config, folders)
    ids = torch.tensor([[0, 0, 0, 9], [0, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    processor = GuideProcessor(method, attention_mask=mask)
    rows = policy.generate(
        input_ids=ids, attention_mask=mask, logits_processor=[processor], do_sample=False,
        max_new_tokens=5, pad_token_id=0,
    )[:, 4:].tolist()
    for row, prompt in zip(rows, ([0, 9], [0, 5, 6, 7]), strict=True):
        expected = naive_greedy(policy, method.scorer, prompt, config, {0})
        assert row[: len(expected)] == expected
    with pytest.raises(ConfigError, match="make a processor for each batch"):
        processor(torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 80))


def test_padding_is_found_or_asked_for(folders):  # noqa: F811
    """As Qwen's: padding and end-of-text are two tokens, and prompts are padded with the first."""
    policy, tokenizer = make_policy()
    method = make_method(DecodingConfig(method="farma", mode="greedy"), folders)
    ids, mask = torch.tensor([[2, 2, 9], [5, 6, 7]]), torch.tensor([[0, 0, 1], [1, 1, 1]])

    def answers(processor, ids=ids):
        return policy.generate(
            input_ids=ids, attention_mask=mask, logits_processor=[processor], do_sample=False,
            max_new_tokens=5, pad_token_id=2,
        )[:, 3:].tolist()

    assert padding_of(tokenizer) == {0, 2}
    right = answers(GuideProcessor(method, attention_mask=mask))
    assert answers(GuideProcessor(method, pad_token_id=padding_of(tokenizer))) == right
    # Another special token would be read as a part of the prompt.
    with pytest.raises(ConfigError, match="begin with '<pad>', which looks like padding"):
        answers(GuideProcessor(method, pad_token_id=0))
    answers(GuideProcessor(method, pad_token_id=0), torch.tensor([[2, 2, 9], [2, 6, 7]]))
    tokenizer.bos_token = tokenizer.eos_token
    with pytest.raises(ConfigError, match="cannot be told from the beginning of a text"):
        padding_of(tokenizer)


def test_padding_must_be_known(folders):  # noqa: F811
    method = make_method(DecodingConfig(method="farma"), folders)
    with pytest.raises(ConfigError, match="pad_token_id"):
        GuideProcessor(method)


@pytest.mark.parametrize(("name", "more"), [
    ("cards", {"reward_target": 50.0}), ("speculative_rejection", {"n": 2}),
    ("best_of_n", {"n": 2}),
])
def test_methods_that_do_not_guide_token_by_token(folders, name, more):  # noqa: F811
    scorer = make_scorer(folders["llama"], "scalar")
    method = build_method(DecodingConfig(method=name, **more), scorer)
    with pytest.raises(ConfigError, match=f"method '{name}' does not guide token by token"):
        GuideProcessor(method, pad_token_id=2)


class TestSteps:
    """A schedule counts from the prompt of each call of generate."""

    @pytest.fixture
    def parts(self, folders, monkeypatch):  # noqa: F811
        policy, tokenizer = make_policy(eos_bias=-50.0)
        config = DecodingConfig(
            method="farma", weight=0.0, weight_schedule="linear", weight_end=10.0, max_new_tokens=8
        )
        method = make_method(config, folders)
        seen = []
        guided = method.weight.guided

        def spied(logits, rewards, steps, *others):
            seen.extend(steps[:1])
            return guided(logits, rewards, steps, *others)

        monkeypatch.setattr(method.weight, "guided", spied)
        processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
        return policy, tokenizer, processor, seen

    @pytest.mark.parametrize("prompts", [
        ["What is 7+8? Try"],  # as long as the last call's ids and a token more
        ["What is 7+8?"], ["Who is 5+9?!"], ["What is"], ["What is 7+8? And what else is it?"],
    ])
    def test_a_reused_processor_begins_anew(self, parts, prompts):
        policy, tokenizer, processor, seen = parts
        library(policy, tokenizer, processor, ["What is 7+8?"], max_new_tokens=4, do_sample=False)
        assert seen == [0, 1, 2, 3]
        again = library(policy, tokenizer, processor, prompts, max_new_tokens=3, do_sample=False)
        assert seen[4:] == [0, 1, 2]
        fresh = GuideProcessor(processor._guide, pad_token_id=tokenizer.pad_token_id)
        assert again == library(
            policy, tokenizer, fresh, prompts, max_new_tokens=3, do_sample=False
        )

    def test_reset(self, parts):
        policy, tokenizer, processor, seen = parts
        [row] = library(
            policy, tokenizer, processor, ["What is 7+8?"], max_new_tokens=4, do_sample=False
        )
        processor.reset()
        longer = "What is 7+8?" + tokenizer.decode(row)
        library(policy, tokenizer, processor, [longer], max_new_tokens=2, do_sample=False)
        assert seen == [0, 1, 2, 3, 0, 1]

    @pytest.mark.parametrize("draft", ["prompt lookup", "assistant"])
    def test_drafts_that_are_taken_back(self, parts, folders, draft):  # noqa: F811
        """What is kept of them has the steps, and the tokens, of decoding without drafts."""
        policy, tokenizer, processor, seen = parts
        prompts = ["abcabcabcabcab"]
        expected = library(
            policy, tokenizer, processor, prompts, max_new_tokens=8, do_sample=False
        )
        del seen[:]
        options = {"prompt_lookup_num_tokens": 3}
        if draft == "assistant":
            assistant, _ = make_policy(eos_bias=-50.0)
            assistant.generation_config.num_assistant_tokens = 3
            options = {"assistant_model": assistant}
        fresh = GuideProcessor(processor._guide, pad_token_id=tokenizer.pad_token_id)
        found = library(
            policy, tokenizer, fresh, prompts, max_new_tokens=8, do_sample=False, **options
        )
        assert found == expected
        assert sorted(set(seen)) == list(range(max(seen) + 1))
        assert len(seen) > 8, "no draft was taken back"


def test_rewards_that_are_no_numbers(folders):  # noqa: F811
    policy, tokenizer = make_policy()
    method = make_method(DecodingConfig(method="farma"), folders)
    with torch.no_grad():
        embeddings = method.scorer.reward_model.carrier.get_input_embeddings()
        embeddings.weight[tokenizer.encode("z")] = float("nan")
    processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
    with pytest.raises(NonFiniteError, match="step 1 of row '3'"):
        library(policy, tokenizer, processor, max_new_tokens=4)


class Anew:
    """A processor that reads every prefix whole."""

    def __init__(self, method, attention_mask):
        self._method, self._mask = method, attention_mask

    def __call__(self, input_ids, scores):
        return GuideProcessor(self._method, attention_mask=self._mask)(input_ids, scores)


@pytest.mark.parametrize("options", [
    {"use_cache": False}, {"cache_implementation": "static"},
    {"num_beams": 3, "num_return_sequences": 2},
])
def test_how_generate_runs_the_policy_makes_no_difference(folders, options):  # noqa: F811
    policy, tokenizer = make_policy()
    mask = tokenizer(PROMPTS, return_tensors="pt", padding=True)["attention_mask"]
    for name in ("farma", "args"):
        method = make_method(DecodingConfig(method=name, weight=0.5, top_k=8), folders)
        found, right = (
            library(policy, tokenizer, one(method, attention_mask=mask), max_new_tokens=5,
                    do_sample=False, **options) for one in (GuideProcessor, Anew)
        )
        assert found == right
