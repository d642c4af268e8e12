"""Rewards of a real chat model equal plain transformers', whatever the batch and the padding."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from rewardsteer.models.kinds import load_scorer
from tests.real.conftest import PROMPTS, read_lines, rewardsteer, write_lines

COMPLETIONS = [
    "Paris.", "Blue, as the sky is on most days of a summer.", "5",
    "Rain falls on the roof all night.",
]


def chat(prompt, completion):
    return [
        {"role": "user", "content": prompt}, {"role": "assistant", "content": completion},
    ]


@pytest.mark.parametrize("how", ["whole", "lora"])
def test_scores_equal_plain_transformers(trained, root, how):
    folder = trained("bt", how)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        text = tokenizer.apply_chat_template(chat(prompt, completion), tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            expected.append(model(**ids).logits[0, 0].item())
    rows = write_lines(root / "to_score.jsonl", [
        {"id": str(number), "prompt": chat(p, c)[:1], "completion": c}
        for number, (p, c) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True))
    ])
    output = root / f"scored-{how}.jsonl"
    rewardsteer(
        "score", "--reward-model", folder, "--input", rows, "--output", output, "--dtype",
        "float32",
    )
    got = [row["reward"] for row in read_lines(output)]
    assert got == pytest.approx(expected, abs=2e-4)
    scorer = load_scorer(folder, dtype=torch.float32, device="cpu")
    prompts = [chat(p, c)[:1] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    for size in (1, 3):
        rewards = scorer.score(prompts, COMPLETIONS, batch_size=size)
        assert np.asarray(rewards) == pytest.approx(expected, abs=2e-4)


def test_a_foreign_classifier_is_read_as_its_authors_read_it(smollm2, tmp_path):
    """A plain one-label classifier with a chat template and no file of ours beside it."""
    torch.manual_seed(0)
    foreign = AutoModelForSequenceClassification.from_pretrained(
        smollm2, num_labels=1, dtype=torch.float32
    )
    foreign.config.pad_token_id = None
    foreign.save_pretrained(tmp_path / "foreign")
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.save_pretrained(tmp_path / "foreign")
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        text = tokenizer.apply_chat_template(chat(prompt, completion), tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            expected.append(foreign(**ids).logits[0, 0].item())
    scorer = load_scorer(tmp_path / "foreign", dtype=torch.float32, device="cpu")
    rewards = scorer.score([chat(p, "")[:1] for p in PROMPTS], COMPLETIONS)
    assert np.asarray(rewards) == pytest.approx(expected, abs=2e-4)


def perplexity(model, tokenizer):
    text = "The capital of France is Paris. It lies on the river Seine, and it is old."
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return math.exp(model(input_ids=ids, labels=ids).loss.item())


def test_an_untrained_adapter_leaves_the_policys_perplexity(smollm2, tmp_path):
    """A policy adapter is merged when it is loaded; one that changes nothing changes nothing."""
    from peft import LoraConfig, get_peft_model

    from rewardsteer.decoding.policy import load_policy

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    plain = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    expected = perplexity(plain, tokenizer)
    assert 1 < expected < 40
    get_peft_model(plain, LoraConfig(target_modules="all-linear")).save_pretrained(tmp_path / "sft")
    tokenizer.save_pretrained(tmp_path / "sft")
    policy = load_policy(str(tmp_path / "sft"), device=torch.device("cpu"), dtype=torch.float32)
    assert perplexity(policy, tokenizer) == pytest.approx(expected, rel=1e-5)
    card = json.loads((tmp_path / "sft" / "adapter_config.json").read_text())
    assert card["base_model_name_or_path"] == str(smollm2)
