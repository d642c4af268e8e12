"""Rewards of chat models are those that plain transformers gives on the chat template's text."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.asking import Ask
from rewardsteer.decoding.running import Activity
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.scoring import Scoring
from rewardsteer.models.checkpoint import CheckpointCard, ensure_padding_token
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.projection import install_projection
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from tests.chat import (
    FAMILIES,
    chat_tokenizer,
    plain_logit,
    plain_reward,
    save_classifier,
    save_policy,
)

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWERS = ["Paris.", "I do not know, I am sorry.", "", "\nParis", " spaced ", "a\n\nb\n", "x" * 60]


def talk(answer: str) -> list[dict[str, str]]:
    return [*QUESTION, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_foreign_classifier_gives_its_authors_rewards(tmp_path, family):
    folder = save_classifier(tmp_path / "rm", family)
    scorer = load_scorer(folder, device="cpu", dtype=torch.float32)
    assert scorer.template.kind == "chat"
    expected = [plain_reward(folder, talk(answer)) for answer in ANSWERS]
    together = scorer.score([QUESTION] * len(ANSWERS), ANSWERS, batch_size=len(ANSWERS))
    alone = [scorer.score([QUESTION], [answer])[0] for answer in ANSWERS]
    np.testing.assert_allclose(together, expected, atol=1e-5)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    as_text = scorer.score([QUESTION[0]["content"]] * len(ANSWERS), ANSWERS, batch_size=3)
    np.testing.assert_allclose(as_text, expected, atol=1e-5)
    last = [one.rewards[-1] for one in scorer.token_scores([QUESTION] * 2, ANSWERS[:2])]
    np.testing.assert_allclose(last, expected[:2], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["scalar", "vocabulary"])
def test_our_own_folders_give_the_same_numbers_in_plain_transformers(tmp_path, family, kind):
    base = save_policy(tmp_path / "base", family)
    tokenizer = chat_tokenizer(family)
    torch.manual_seed(3)
    model = RewardModel.from_base(base, HeadConfig(kind=kind), dtype=torch.float32)
    ensure_padding_token(tokenizer, model.carrier)
    if kind == "vocabulary":
        install_projection(model.carrier)
    template = Scorer(model, tokenizer, Template()).template
    card = CheckpointCard(head=HeadConfig(kind=kind), template=template.model_dump(mode="json"))
    model.save_pretrained(tmp_path / "rm", tokenizer, card)
    scorer = load_scorer(tmp_path / "rm", device="cpu", dtype=torch.float32)
    plain = plain_reward if kind == "scalar" else plain_logit
    expected = [plain(tmp_path / "rm", talk(answer)) for answer in ANSWERS]
    rewards = scorer.score([QUESTION] * len(ANSWERS), ANSWERS, batch_size=4)
    np.testing.assert_allclose(rewards, expected, atol=1e-5)
    # What is compared is the choice.
    assert list(np.argsort(rewards)) == list(np.argsort(expected))


CLOSED = ["chatml", "qwen", "gemma", "llama3", "llama3-pad-eos", "zephyr"]


@pytest.mark.parametrize("family", CLOSED)
def test_a_generation_has_the_reward_of_its_text_whatever_stopped_it(tmp_path, family):
    folder = save_classifier(tmp_path / "rm", family)
    scorer = load_scorer(folder, device="cpu", dtype=torch.float32)
    tokenizer = scorer.tokenizer
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    body = tokenizer("Paris.", add_special_tokens=False)["input_ids"]
    stops = tokenizer.convert_tokens_to_ids(list(FAMILIES[family].stops))
    expected = plain_reward(folder, talk("Paris."))
    encoded = Encoded("0", prompt)
    ended = [
        SimpleNamespace(prompt=encoded, token_ids=ids, response_ids=ids, stop_token=ids[len(body):],
                        finish_reason="stop", origin=None, aborted=False)
        for ids in (body, *([*body, stop] for stop in stops))
    ]
    scoring = Scoring(scorer, batch_size=4, activity=Activity())
    answers = asyncio.run(scoring.answer([Ask(encoded, one) for one in ended]))
    np.testing.assert_allclose([one.values[-1] for one in answers], expected, atol=1e-5)
    closed = [scorer.close_response([*body, stop], stops) for stop in stops]
    rewards = scorer.score_ids([prompt] * len(stops), closed)
    np.testing.assert_allclose(rewards, expected, atol=1e-5)
