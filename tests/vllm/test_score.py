"""Our checkpoints in stock vLLM give the rewards that transformers gives."""

import json
import shutil

import pytest
import torch

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer.errors import ConfigError  # noqa: E402
from rewardsteer.evaluation.vllm_scorer import VllmScorer  # noqa: E402
from rewardsteer.models.checkpoint import read_card, write_card  # noqa: E402
from rewardsteer.models.kinds import load_scorer  # noqa: E402
from tests.cli.test_generate_command import refused, run  # noqa: E402
from tests.vllm.models import make_requests, save_models  # noqa: E402
from tests.vllm.test_generate import VLLM  # noqa: E402

COMPLETIONS = ["15", "b", "", "me and you", "7"] * 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = save_models(tmp_path_factory.mktemp("models"))
    prompts = [one.prompt for one in make_requests(30)]
    rows = [{"prompt": p, "completion": c} for p, c in zip(prompts, COMPLETIONS, strict=True)]
    rows[4]["completion"] = "x" * 600
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def score(root, output, *more, reward_model="args"):
    return run(
        "score", "--reward-model", root / reward_model, "--input", root / "rows.jsonl", "--output",
        output, "--dtype", "float32", *more,
    )


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("reward_model", "more"),
    [("args", ()), ("args", ("--tokens",)), ("farma", ()), ("genarm", ("--tokens",))],
)
def test_rewards(root, tmp_path, reward_model, more):
    """Those of the transformers engine, of whole completions and of all their prefixes."""
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    assert score(root, ours, *more, reward_model=reward_model).exit_code == 0
    result = score(root, theirs, *more, *VLLM, reward_model=reward_model)
    assert result.exit_code == 0, result.output
    ours, theirs = read(ours), read(theirs)
    assert ours[4].pop("reward") is theirs[4].pop("reward") is None
    assert ours[4].pop("skipped").startswith(theirs[4].pop("skipped")[:9])
    for one, other in zip(ours, theirs, strict=True):
        for name in ("reward", "token_rewards"):
            assert other.pop(name, None) == pytest.approx(one.pop(name, None), abs=1e-4)
        assert one == other
    assert sum("prompt_tokens" in one for one in ours) == (29 if more else 0)


def test_rows_that_no_token_has_do_not_count(root, tmp_path):
    """Log-probabilities are normalised over the tokens alone, as the transformers engine's are."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "padded"
    shutil.copytree(root / "genarm", folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = model.config.vocab_size
    model.resize_token_embeddings(tokens + 23)
    model.get_output_embeddings().weight.data[tokens:] = 0.5
    model.save_pretrained(folder)
    prompts, completions = ["say ", "1+"], ["me and you", "15"]
    plain = load_scorer(root / "genarm").score(prompts, completions)
    ours = load_scorer(folder).score(prompts, completions)
    theirs = VllmScorer(
        folder, "float32", enforce_eager=True, distributed_executor_backend="uni"
    ).score(prompts, completions)
    assert list(ours) == pytest.approx(list(plain), abs=1e-4)
    assert list(theirs) == pytest.approx(list(plain), abs=1e-4)


@pytest.fixture(scope="module")
def classifier(root):
    return vllm.LLM(
        str(root / "args"), runner="pooling", dtype="float32", enforce_eager=True,
        distributed_executor_backend="uni", hf_overrides={"use_sep_token": False},
    )


RAW = vllm.PoolingParams(use_activation=False)


def test_stock_vllm_gives_them(root, classifier):
    """Without any code of ours: text in, raw value out."""
    requests = make_requests(6)
    texts, scorer = [request.prompt for request in requests], load_scorer(root / "args")
    outputs = classifier.classify(texts, pooling_params=RAW, use_tqdm=False)
    expected = scorer.score_ids([[]] * 6, [request.prompt_ids for request in requests])
    found = [output.outputs.probs[0] for output in outputs]
    assert found == pytest.approx(list(expected), abs=1e-4)
    outputs = classifier.encode(texts, pooling_task="classify", pooling_params=RAW, use_tqdm=False)
    found = [float(output.outputs.data[0]) for output in outputs]
    assert found == pytest.approx(list(expected), abs=1e-4)


def test_stock_vllm_ranks_completions_of_a_prompt(root, classifier):
    """Its scoring call joins the two texts, as our template does, but for end-of-text."""
    texts, scorer = ["me", "you and me", "1"], load_scorer(root / "args")
    closed = [text + scorer.tokenizer.eos_token for text in texts]
    outputs = classifier.score("say ", closed, pooling_params=RAW, use_tqdm=False)
    expected = scorer.score(["say "] * 3, texts)
    assert [output.outputs.score for output in outputs] == pytest.approx(list(expected), abs=1e-4)


def test_a_vocabulary_head_is_an_ordinary_causal_model(root):
    """Its logits are the rewards of all next tokens, and it writes what a causal model would."""
    llm = vllm.LLM(
        str(root / "farma"), dtype="float32", enforce_eager=True, logprobs_mode="raw_logits",
        distributed_executor_backend="uni", max_logprobs=-1,
    )
    requests, scorer = make_requests(6), load_scorer(root / "farma")
    outputs = llm.generate(
        [{"prompt_token_ids": request.prompt_ids} for request in requests],
        vllm.SamplingParams(max_tokens=1, temperature=0, logprobs=-1, detokenize=False),
        use_tqdm=False,
    )
    for request, output in zip(requests, outputs, strict=True):
        ids = torch.tensor([request.prompt_ids])
        rewards = scorer.next_token(ids, torch.ones_like(ids))[0]
        [answer] = output.outputs
        found = [answer.logprobs[0][token].logprob for token in range(len(rewards))]
        assert found == pytest.approx(rewards.tolist(), abs=1e-4)
        assert list(answer.token_ids) == [int(rewards.argmax())]


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--reward-model", "mlp"), ("linear heads alone", "mlp")),
        (("--reward-model", "absent"), ("there is none",)),
        (("--dtype", "float8"), ("vLLM refuses", "float8")),
    ],
)
def test_refused(root, tmp_path, more, parts):
    if "mlp" in more:
        card = read_card(root / "args")
        head = card.head.model_copy(update={"layers": "mlp"})
        (root / "mlp").mkdir()
        write_card(root / "mlp", card.model_copy(update={"head": head}))
    more = [root / item if item in ("mlp", "absent") else item for item in more]
    refused(score(root, tmp_path / "y.jsonl", *VLLM, *more), *parts)
    assert list(tmp_path.iterdir()) == []


def test_no_similarities(root):
    scorer = object.__new__(VllmScorer)
    with pytest.raises(ConfigError, match="no hidden states"):
        scorer.token_scores_ids([[1]], [[2]], goal=object())
