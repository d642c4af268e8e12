"""Names, bytes and places of tokens in log-probabilities, where several tokens are a character."""

import httpx
import openai
import pytest

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.sampling import TokenLogprob
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.logprobs import chat_form, completion_form
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.service import Service
from tests.fakes import tiny_causal_lm
from tests.serving.running import running
from tests.serving.test_text import TEXTS, bytes_tokenizer

TOKENIZER = bytes_tokenizer()


def found_for(ids):
    """Each token and one more, which begins a character of three bytes."""
    return [TokenLogprob(-1.0, [(one, -1.0), (TOKENIZER.encode("東")[0], -2.0)]) for one in ids]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_are_those_of_the_text(text):
    ids = TOKENIZER.encode(text)
    content = chat_form(TOKENIZER, TOKENIZER.encode("x"), ids, found_for(ids)).content
    assert bytes(byte for one in content for byte in one.bytes).decode() == text
    for one in content:
        if not one.token.startswith("bytes:"):
            assert bytes(one.bytes).decode() == one.token
        assert one.top_logprobs[1].token == r"bytes:\xe6"
        assert one.top_logprobs[1].bytes == [0xE6]


def test_tokens_lie_in_their_characters():
    ids = TOKENIZER.encode("aüb東!")
    told = completion_form(TOKENIZER, [], ids, found_for(ids))
    assert told.tokens == [
        "a", r"bytes:\xc3", r"bytes:\xbc", "b", r"bytes:\xe6", r"bytes:\x9d", r"bytes:\xb1", "!",
    ]
    assert told.text_offset == [0, 1, 1, 2, 3, 3, 3, 4]
    assert all(len(top) == len({r"bytes:\xe6", name})
               for top, name in zip(told.top_logprobs, told.tokens, strict=True))
    # A character that never ends is shown as one.
    broken = [*TOKENIZER.encode("東")[:2], *TOKENIZER.encode("ab")]
    assert TOKENIZER.decode(broken) == "\ufffdab"
    assert completion_form(TOKENIZER, [], broken, found_for(broken)).text_offset == [0, 0, 1, 2]


@pytest.fixture(scope="module")
def client():
    policy = tiny_causal_lm(vocab_size=len(TOKENIZER), seed=0)
    limits = ServingConfig(places=8, seconds=60.0)
    models = ServedModels(policy, TOKENIZER, None, DecodingConfig(), limits, name="tiny")
    with running(Service(models, limits)) as (address, _), openai.OpenAI(
        base_url=f"{address}/v1", api_key="none", max_retries=0
    ) as found:
        yield found


@pytest.mark.parametrize("echo", [False, True])
def test_streams_tell_the_same(client, echo):
    """Random bytes, most of which are no characters."""
    body = {"model": "tiny", "prompt": "Grüße, 東京", "seed": 3, "max_tokens": 60, "echo": echo,
            "logprobs": 2, "stop": ["stop", "er"], "n": 2}
    parts = list(client.completions.create(stream=True, **body))
    for choice in client.completions.create(**body).choices:
        mine = [part.choices[0] for part in parts if part.choices[0].index == choice.index]
        assert "".join(one.text for one in mine) == choice.text
        for name in ("tokens", "text_offset"):
            told = [value for one in mine if one.logprobs for value in getattr(one.logprobs, name)]
            assert told == getattr(choice.logprobs, name)
        for token, begin in zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True):
            if not token.startswith("bytes:"):
                assert choice.text.startswith(token, begin) or token == "<eos>"


def test_tokens_of_rewards_have_the_same_names(tmp_path):
    tiny_causal_lm(vocab_size=len(TOKENIZER)).save_pretrained(tmp_path)
    model = RewardModel.from_base(tmp_path, HeadConfig(kind="scalar")).eval()
    scorer = Scorer(model, TOKENIZER, Template(kind="text"))
    models = ServedModels(None, None, scorer, DecodingConfig(), ServingConfig())
    with running(Service(models, ServingConfig())) as (address, _):
        [found] = httpx.post(f"{address}/v1/rewards", json={
            "input": [{"prompt": "x", "completion": "a ü"}], "per_token": True,
        }).json()["data"]
    assert found["tokens"] == ["a", " ", r"bytes:\xc3", r"bytes:\xbc", "<eos>"]
