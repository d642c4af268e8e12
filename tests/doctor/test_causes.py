"""The cause of other programs' numbers is found by computing it."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardsteer.doctor.causes import find_cause
from rewardsteer.doctor.patient import Patient
from rewardsteer.doctor.samples import built_in
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.folder import describe_folder
from tests.chat import save_classifier


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    folder = save_classifier(tmp_path_factory.mktemp("cause") / "m", "llama3")
    scorer = load_scorer(folder, device="cpu")
    return Patient(describe_folder(str(folder), folder), scorer, built_in())


def logits(patient, write, **options):
    """What a program computes that writes texts in its own way."""
    folder = patient.folder.path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    for prompt, text in zip(patient.samples.prompts, patient.samples.completions, strict=True):
        ids = tokenizer(write(tokenizer, prompt, text), return_tensors="pt", **options)
        with torch.no_grad():
            found.append(float(model(input_ids=ids["input_ids"]).logits[0, 0]))
    return np.array(found)


def chat(tokenizer, prompt, text, **options):
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
    return tokenizer.apply_chat_template(turns, tokenize=False, **options)


@pytest.mark.parametrize(("name", "write", "options"), [
    ("double BOS", chat, {}),
    ("template missing", lambda tokenizer, prompt, text: f"{prompt}\n{text}", {}),
    ("completion alone", lambda tokenizer, prompt, text: text, {}),
    ("generation prompt", lambda *given: chat(*given, add_generation_prompt=True),
     {"add_special_tokens": False}),
    ("end-of-text added", lambda tokenizer, *given: chat(tokenizer, *given) + tokenizer.eos_token,
     {"add_special_tokens": False}),
    ("no BOS", lambda tokenizer, *given: chat(tokenizer, *given).removeprefix("<|begin_of_text|>"),
     {"add_special_tokens": False}),
])
def test_other_readings(patient, name, write, options):
    numbers = logits(patient, write, **options)
    cause = find_cause(patient, numbers)
    assert cause is not None
    assert cause.name == name
    both = find_cause(patient, 1 / (1 + np.exp(-numbers)))
    assert both is not None
    assert both.name == f"{name} + sigmoid"


@pytest.mark.parametrize(("name", "change"), [
    ("sigmoid", lambda rewards: 1 / (1 + np.exp(-rewards))), ("sign", lambda rewards: -rewards),
    ("softmax", np.ones_like), ("scaled", lambda rewards: (rewards - 3.5) / 2.25),
])
def test_other_numbers(patient, name, change):
    cause = find_cause(patient, change(patient.rewards))
    assert cause is not None
    assert cause.name == name


def test_numbers_of_no_known_cause(patient):
    numbers = np.random.default_rng(0).normal(size=len(patient.rewards))
    assert find_cause(patient, numbers) is None
