"""The boundary of prompt and response, templates, and padding, on arbitrary text."""

import gzip
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rewardsteer.data.collate import PairCollator, SftCollator, to_batch
from rewardsteer.data.render import render_prompt
from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import encode_completion
from rewardsteer.errors import DataError
from rewardsteer.records import Message
from tests.fakes import CHARACTERS, character_tokenizer

NEOX = (
    Path(__file__).parents[2] / ".." / "shared" / "data" / "tokenizers" / "gpt-neox-20b"
    / "tokenizer.json.gz"
)
words = st.text(alphabet=CHARACTERS, max_size=20)


@pytest.fixture(scope="module")
def neox():
    if not NEOX.exists():
        pytest.skip("the shared GPT-NeoX tokenizer is not here")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(gzip.decompress(NEOX.read_bytes()).decode()),
        eos_token="<|endoftext|>", pad_token="<|padding|>",
    )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
@example("", "x")
@example("Hello", " world")
@example("Q:", "é́ \U0001f600")
@example("ab", "\n\n")
def test_boundary_is_exact_with_a_real_tokenizer(neox, prompt, response):
    """The prompt keeps its own tokens, and the text comes back whole."""
    template = Template(append_eos=False)
    prompt_ids, response_ids = encode_completion(prompt, response, template, neox)
    assert prompt_ids == neox(prompt, add_special_tokens=False)["input_ids"]
    decoded = neox.decode(prompt_ids + response_ids, clean_up_tokenization_spaces=False)
    normal = neox.backend_tokenizer.normalizer
    expected = normal.normalize_str(prompt + response) if normal else prompt + response
    parts = [normal.normalize_str(p) if normal else p for p in (prompt, response)]
    # Normalisation may join accents across the boundary; either reading keeps all text.
    assert decoded in (expected, "".join(parts))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(words, st.text(alphabet=CHARACTERS, min_size=1, max_size=60)),
             min_size=1, max_size=5),
    st.sampled_from(["left", "right"]), st.booleans(),
)
def test_masks_mark_what_they_say(texts, side, pad_is_eos):
    tokenizer = character_tokenizer(pad_is_eos=pad_is_eos)
    rows = []
    for index, (prompt, response) in enumerate(texts):
        prompt_ids, ids = encode_completion(prompt, response, Template(), tokenizer)
        rows.append({
            "id": str(index), "prompt_ids": prompt_ids, "chosen_ids": ids, "rejected_ids": ids[-1:],
            "margin": 0.0, "chosen_lengths": [len(ids) - 1], "pair_lengths": [1],
        })
    batch = to_batch(
        PairCollator(tokenizer.pad_token_id, side, prefixes="chosen_lengths")(rows)
    )
    last = batch.last_positions.tolist()
    for index, row in enumerate(rows):
        real = batch.input_ids[index][batch.attention_mask[index].bool()].tolist()
        assert real == row["prompt_ids"] + row["chosen_ids"]
        assert batch.input_ids[index][batch.response_mask[index]].tolist() == row["chosen_ids"]
        # pad = eos: the real end-of-text at the end is found all the same.
        assert batch.input_ids[index, last[index]] == tokenizer.eos_token_id
        marked = batch.input_ids[index][batch.prefix_mask[index]].tolist()
        assert marked == [row["chosen_ids"][-2]]
        assert not batch.prefix_mask[len(rows) + index].any()


@given(words, words)
def test_end_of_text_closes_once(prompt, response):
    tokenizer = character_tokenizer()
    _, ids = encode_completion(prompt, response, Template(), tokenizer)
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


def test_sft_labels_are_the_response_alone():
    rows = [{"prompt_ids": [5, 6], "label_ids": [7]}, {"prompt_ids": [], "label_ids": [8, 9, 1]}]
    batch = SftCollator(2)(rows)
    assert batch["labels"].tolist() == [[-100, -100, 7], [8, 9, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_templates_render_and_refuse():
    tokenizer = character_tokenizer()
    braces = Template(prompt="{prompt} {x}", response=" {response}")
    assert render_prompt("a {b} {0}", braces, tokenizer) == "a {b} {0} {x}"
    talk = [Message(role="user", content="hi")]
    assert render_prompt(talk, Template(), tokenizer) == "\n\nHuman: hi\n\nAssistant:"
    assert render_prompt(talk, Template(system="Be kind."), tokenizer).startswith("Be kind.\n\n")
    with pytest.raises(DataError, match="no format for the role 'tool'"):
        render_prompt([Message(role="tool", content="x")], Template(), tokenizer)
    with pytest.raises(DataError, match="no chat template"):
        render_prompt("x", Template(kind="chat"), tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chat = render_prompt("x", Template(kind="chat", system="s"), tokenizer)
    assert chat == "[system]s[user]x[assistant]"


def test_tools_reach_the_chat_template_and_nothing_else():
    tokenizer = character_tokenizer()
    tokenizer.chat_template = (
        "{% if tools %}[tools]{{ tools[0].name }}{% endif %}"
        "{% for m in messages %}{% if m.role == 'critic' %}{{ raise_exception('No critics') }}"
        "{% endif %}[{{ m.role }}]{{ m.content }}"
        "{% if m.tool_calls %}({{ m.tool_calls[0].function.name }}){% endif %}{% endfor %}"
    )
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    talk = [
        Message(role="user", content="x"), Message(role="assistant", content="", tool_calls=[call]),
        Message(role="tool", content="3", name="add"),
    ]
    chat = Template(kind="chat")
    text = render_prompt(talk, chat, tokenizer, tools=[{"name": "add"}])
    assert text == "[tools]add[user]x[assistant](add)[tool]3"
    assert talk[0].model_dump() == {"role": "user", "content": "x"}
    with pytest.raises(DataError, match=r"refuses the conversation: No critics"):
        render_prompt([Message(role="critic", content="x")], chat, tokenizer)
    silent = character_tokenizer()
    silent.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match="writes no tools and tool calls"):
        render_prompt(talk, chat, silent)
    with pytest.raises(DataError, match="writes no tools and tool calls"):
        render_prompt(talk[:1], chat, silent, tools=[{"name": "add"}])
    turns = {"user": "{content}", "assistant": "{content}", "tool": "{content}"}
    with pytest.raises(DataError, match="cannot write tools"):
        render_prompt(talk, Template(turns=turns), tokenizer)
