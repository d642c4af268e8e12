"""Templates of reasoning models: the response that was given is kept, and divides cleanly."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rewardsteer.data.segments import SegmentTokenizer
from rewardsteer.data.sets import encode_comparison
from rewardsteer.data.template import Template
from rewardsteer.data.thoughts import boundary
from rewardsteer.data.tokenize import encode_completion
from rewardsteer.records import Comparison, Message

MARKERS = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
# As DeepSeek-R1's: an opened turn begins a thought, turns that are over have none.
DROPS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<｜User｜>' + message['content'] }}{% else %}"
    "{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<eos>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
# As the first DeepSeek-R1's: the model writes the tag itself.
BARE = DROPS.replace("<think>\n' }}", "' }}")
# Keeps thoughts of turns that are over.
KEEPS = DROPS.replace(".split('</think>')[-1]", "")
# Writes an empty thought in front of content, as if it never held one (Qwen3.8).
APART = DROPS.replace("message['content'].split('</think>')[-1]",
                      "'<think>\n\n</think>\n\n' + message['content']")
TEMPLATES = {"drops": DROPS, "bare": BARE, "keeps": KEEPS}
USER = [Message(role="user", content="What is 4+1?")]
FULL = "<think>\nadd one\n</think>\n\n5"
CHAT = Template(kind="chat")


def tokenizer(template: str, knows: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE, with the template's markers as special tokens or as plain text, some of which
    melts with what follows."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        ["<｜Assistant｜><think>\n", "<｜Assistant｜><a>", "<｜Assistant｜>\n\n"] * 50,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<bos>", "<eos>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    if knows:
        backend.add_tokens([AddedToken(marker, normalized=False) for marker in MARKERS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>",
        chat_template={**TEMPLATES, "apart": APART}[template], clean_up_tokenization_spaces=False,
    )


def written(one: PreTrainedTokenizerFast, response: str, prompt=USER) -> tuple[str, str]:
    row = encode_completion(prompt, response, CHAT, one)
    return one.decode(row.prompt_ids), one.decode(row.response_ids)


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("name", [*TEMPLATES, "apart"])
def test_the_thought_that_was_given_is_kept_and_opened_once(name, knows):
    prompt, response = written(tokenizer(name, knows), FULL)
    opening = "" if name == "bare" else "<think>\n"
    assert prompt == f"<bos><｜User｜>What is 4+1?<｜Assistant｜>{opening}"
    assert response == f"{FULL.removeprefix(opening)}<eos>"


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("name", ["drops", "keeps"])
def test_what_a_model_writes_behind_the_tag_is_the_same_row(name, knows):
    one = tokenizer(name, knows)
    given = encode_completion(USER, FULL, CHAT, one)
    assert encode_completion(USER, FULL.removeprefix("<think>\n"), CHAT, one) == given
    opened = one.apply_chat_template(
        [USER[0].model_dump()], tokenize=False, add_generation_prompt=True
    )
    assert encode_completion(opened, FULL, CHAT, one) == given


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("response", ["5", "<a>5", "<thought>5", "\n\n5", ">5", "", "<p>5</p>"])
def test_without_a_thought_markers_stay_whole(name, knows, response):
    prompt, rest = written(tokenizer(name, knows), response)
    assert prompt + rest == f"<bos><｜User｜>What is 4+1?<｜Assistant｜>{response}<eos>"
    assert prompt.endswith("<｜Assistant｜>")


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("rejected", ["<think>\nguess\n</think>\n\n7", "7", "<a>7"])
def test_both_responses_follow_one_prompt(name, knows, rejected):
    one = tokenizer(name, knows)
    pair = encode_comparison(
        Comparison(id="1", prompt=USER, chosen=FULL, rejected=rejected), CHAT, one
    )
    before = one.decode(pair.prompt_ids)
    assert before.endswith(("<｜Assistant｜>", "<｜Assistant｜><think>\n"))
    for ids, given in ((pair.chosen_ids, FULL), (pair.rejected_ids, rejected)):
        assert before + one.decode(ids) == "".join(written(one, given))
    segments = SegmentTokenizer(one)
    assert encode_comparison(
        Comparison(id="1", prompt=USER, chosen=FULL, rejected=rejected), CHAT, segments
    ) == pair


def test_past_turns_are_the_templates():
    """Only the last response is kept; what came before is written as the template likes."""
    before = [*USER, Message(role="assistant", content=FULL), Message(role="user", content="+1?")]
    prompt, response = written(tokenizer("drops", True), FULL, before)
    assert prompt.count("add one") == 0
    assert response.count("add one") == 1


def test_a_boundary_is_in_front_of_the_marker_it_would_fall_into():
    assert boundary("x<think_hard>y", "x<think>", "z") == 1
    assert boundary("x<think>y", "x<think>", "y") == 8
