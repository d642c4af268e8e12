"""Guided vLLM on a GPU: the V2 runner, CUDA graphs, and drafts of n-grams."""

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed")

from rewardsteer.decoding.engines.vllm_engine import start  # noqa: E402
from rewardsteer.decoding.engines.vllm_settings import guided_by  # noqa: E402
from tests.vllm.models import LENGTH, WEIGHTS, make_requests, save_models  # noqa: E402

COUNT, NEW = 64, 32
DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


def texts(root, reward=None, weights=WEIGHTS, **options):
    """Greedy tokens by request, and the logits that the first of them was chosen by."""
    if reward is not None:
        options["hf_overrides"] = guided_by([root / reward])
    llm = start(
        str(root / "policy"), dtype="bfloat16", max_model_len=LENGTH, max_num_seqs=COUNT,
        gpu_memory_utilization=0.2, logprobs_mode="processed_logits", max_logprobs=-1, **options,
    )
    parameters = [
        vllm.SamplingParams(
            temperature=0, max_tokens=NEW, logprobs=-1,
            extra_args={"reward_weight": weights[n % len(weights)]} if reward else None,
        )
        for n in range(COUNT)
    ]
    prompts = [{"prompt_token_ids": one.prompt_ids} for one in make_requests(COUNT)]
    outputs = [one.outputs[0] for one in llm.generate(prompts, parameters, use_tqdm=False)]
    first = [{i: v.logprob for i, v in one.logprobs[0].items()} for one in outputs]
    return [list(one.token_ids) for one in outputs], first


@pytest.fixture(scope="module")
def guided(root):
    return texts(root, "farma")


def test_first_tokens_are_chosen_by_weighted_sums(root, guided):
    """Of the logits of two unguided engines; weight 0 leaves texts as they are."""
    plain, policy = texts(root)
    _, rewards = texts_of_reward(root)
    for number in range(COUNT):
        weight = WEIGHTS[number % len(WEIGHTS)]
        for token, score in guided[1][number].items():
            right = policy[number][token] + weight * rewards[number][token]
            assert score == pytest.approx(right, abs=0.05, rel=0.02)
        if weight == 0:
            assert guided[0][number] == plain[number]
    assert sum(one != other for one, other in zip(guided[0], plain, strict=True)) > COUNT // 2


def texts_of_reward(root):
    """The reward model as a causal model: its logits are the rewards."""
    twin = root / "twin"
    twin.mkdir(exist_ok=True)
    (twin / "policy").symlink_to(root / "farma")
    return texts(twin)


@pytest.mark.parametrize("options", [
    {"speculative_config": DRAFTS}, {"enforce_eager": True}, {"max_num_batched_tokens": 128},
])
def test_how_vllm_runs_it_makes_no_difference(root, guided, options):
    """Drafts, graphs, chunks of prompts; bfloat16 may round a close choice the other way."""
    found, _ = texts(root, "farma", **options)
    same = sum(one == other for one, other in zip(found, guided[0], strict=True))
    assert same > 0.9 * COUNT
