"""Saved tokenizers: the same after a round trip, in a form that older transformers read."""

import json

import pytest

from rewardsteer.models.checkpoint import load_tokenizer, save_tokenizer
from tests.chat import FAMILIES, chat_tokenizer, save_policy


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_under_names_that_old_versions_know(tmp_path, family):
    tokenizer = load_tokenizer(save_policy(tmp_path / "base", family))
    save_tokenizer(tokenizer, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(config.get("extra_special_tokens"), list)
    # transformers 4.46 looks for the chat template here alone.
    assert config["chat_template"] == tokenizer.chat_template
    again = load_tokenizer(tmp_path / "saved")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi?"}], tokenize=False)
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.get_vocab() == tokenizer.get_vocab()
    assert set(again.all_special_tokens) == set(tokenizer.all_special_tokens)
    assert again.chat_template == tokenizer.chat_template
    assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == tokenizer.decode(
        tokenizer(text)["input_ids"], skip_special_tokens=True
    )
    assert chat_tokenizer(family).pad_token == again.pad_token
