"""Chat templates: how they are chosen, what they write, and where they end a turn."""

import pytest

from rewardsteer.data.chat import turn_end
from rewardsteer.data.render import as_prompt, render_prompt
from rewardsteer.data.response_end import close_response
from rewardsteer.data.sets import encode_comparison
from rewardsteer.data.template import Template, resolve, stored_template, writer_of
from rewardsteer.data.tokenize import encode_completion, encode_prompt
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison, Message
from tests.chat import FAMILIES, chat_tokenizer
from tests.fakes import character_tokenizer

USER = [Message(role="user", content="Hi?")]
CHAT = Template(kind="chat")


def whole(tokenizer, answer, prompt=USER):
    messages = [message.model_dump() for message in prompt]
    messages.append({"role": "assistant", "content": answer})
    return tokenizer.apply_chat_template(messages, return_dict=False)


def test_auto_is_chat_where_the_tokenizer_has_a_template():
    chats, plain = chat_tokenizer("gemma"), character_tokenizer()
    assert resolve(Template(), chats).kind == "chat"
    assert resolve(Template(), plain).kind == "text"
    assert resolve(Template(kind="text"), chats).kind == "text"
    # A text format is given, which chat would not use.
    assert resolve(Template(prompt="Q: {prompt}"), chats).kind == "text"
    assert resolve(Template.model_validate(Template().model_dump()), chats).kind == "chat"


def test_stored_templates_keep_their_meaning():
    older = {key: value for key, value in CHAT.model_dump().items() if key != "end"}
    assert stored_template(older).end == "eos"
    assert stored_template(CHAT.model_dump()).end == "template"
    assert stored_template({"kind": "chat"}).end == "template"
    assert stored_template({"append_eos": False}).kind == "text"
    assert stored_template({}).kind == "auto"
    tokenizer = chat_tokenizer("chatml")
    _, ids = encode_completion(USER, "Yes.", stored_template(older), tokenizer)
    assert tokenizer.decode(ids) == "Yes.<|im_end|>"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answer", ["Yes.", "\nYes", "", "a\n\nb"])
def test_a_row_is_what_the_chat_template_writes(family, answer):
    tokenizer = chat_tokenizer(family)
    row = encode_completion(USER, answer, Template(), tokenizer)
    assert row.prompt_ids + row.response_ids == whole(tokenizer, answer)
    pair = encode_comparison(
        Comparison(id="1", prompt=USER, chosen=answer, rejected="No."), Template(), tokenizer
    )
    assert pair.prompt_ids + pair.chosen_ids == whole(tokenizer, answer)
    assert pair.prompt_ids + pair.rejected_ids == whole(tokenizer, "No.")
    opened = encode_completion(USER, answer, Template(append_eos=False), tokenizer)
    text = tokenizer.decode([*opened.prompt_ids, *opened.response_ids])
    assert text + turn_end(tokenizer) == tokenizer.decode(whole(tokenizer, answer))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_generation_is_closed_as_the_template_closes_a_turn(family):
    tokenizer, answer = chat_tokenizer(family), "Yes."
    row = encode_completion(USER, answer, CHAT, tokenizer)
    stops = tokenizer.convert_tokens_to_ids(list(FAMILIES[family].stops))
    body = tokenizer(answer, add_special_tokens=False)["input_ids"]
    opening = row.response_ids[: row.response_ids.index(body[0])]
    closed = row.response_ids[len(opening) :]
    for stop in stops:
        assert close_response([*body, stop], CHAT, tokenizer, stops) == _end(closed, body)
    assert close_response(body, CHAT, tokenizer, stops) == _end(closed, body)
    assert close_response(_end(closed, body), CHAT, tokenizer, stops) == _end(closed, body)
    left_open = Template(kind="chat", append_eos=False)
    assert close_response([*body, stops[-1]], left_open, tokenizer, stops) == body
    assert close_response([stops[0]], left_open, tokenizer, stops) == [stops[0]]


def _end(closed, body):
    assert closed[: len(body)] == body
    return closed


def test_text_responses_drop_the_policys_own_end():
    tokenizer, text = chat_tokenizer("gemma"), Template(kind="text")
    turn, eos = tokenizer.convert_tokens_to_ids(["<end_of_turn>", "<eos>"])
    assert close_response([9, 10, turn], text, tokenizer, {turn, eos}) == [9, 10, eos]
    assert close_response([9, turn, eos], text, tokenizer, {turn, eos}) == [9, eos]
    opened = Template(kind="text", append_eos=False)
    assert close_response([9, 10, turn], opened, tokenizer, {turn, eos}) == [9, 10]


@pytest.mark.parametrize("family", ["gemma", "llama3", "llama2", "thinking"])
@pytest.mark.parametrize("kind", ["chat", "text"])
def test_a_written_prompt_gets_one_beginning_of_text(family, kind):
    tokenizer = chat_tokenizer(family)
    template = Template(kind=kind)
    written = tokenizer.apply_chat_template(
        [USER[0].model_dump()], tokenize=False, add_generation_prompt=True
    )
    once = tokenizer(written, add_special_tokens=False)["input_ids"]
    text = render_prompt(written, template, tokenizer)
    assert encode_prompt(text, template, tokenizer) == once
    row = encode_completion(written, "Yes.", template, tokenizer)
    assert row.prompt_ids.count(tokenizer.bos_token_id) == 1
    if kind == "chat" and family != "thinking":
        assert row.prompt_ids + row.response_ids == whole(tokenizer, "Yes.")
    # Somebody left beginning-of-text away, for the tokenizer to add.
    bare = written.removeprefix(tokenizer.bos_token)
    if family in ("gemma", "llama3"):
        text = render_prompt(bare, template, tokenizer)
        assert encode_prompt(text, template, tokenizer) == once


def test_text_that_begins_like_no_conversation_is_a_users_message():
    tokenizer = chat_tokenizer("chatml")
    shown = render_prompt("Hi?", CHAT, tokenizer)
    assert shown.endswith("user\nHi?<|im_end|>\n<|im_start|>assistant\n")


def test_a_thought_that_the_template_opens_is_written_once():
    tokenizer = chat_tokenizer("thinking")
    row = encode_completion(USER, "<think>\nadd\n</think>5", Template(), tokenizer)
    assert tokenizer.decode([*row.prompt_ids, *row.response_ids]).count("<think>") == 1
    assert tokenizer.decode(row.prompt_ids).endswith("<think>\n")


def test_refusals_are_sentences_with_the_templates_words():
    tokenizer = chat_tokenizer("gemma")
    system = [Message(role="system", content="x"), *USER]
    with pytest.raises(DataError, match="System role not supported"):
        render_prompt(system, Template(), tokenizer)
    with pytest.raises(DataError, match="System role not supported"):
        encode_completion(system, "y", Template(), tokenizer)
    with pytest.raises(DataError, match="must alternate"):
        render_prompt([*USER, *USER], Template(), tokenizer)


def test_roles_that_no_template_names_are_refused():
    tokenizer = chat_tokenizer("chatml")
    with pytest.raises(DataError, match=r"Message 2 has the role 'usr', which the chat template"):
        render_prompt([*USER, Message(role="usr", content="y")], Template(), tokenizer)
    system, developer = (
        render_prompt([Message(role=role, content="x"), *USER], Template(), tokenizer)
        for role in ("system", "developer")
    )
    assert system == developer
    tokenizer.chat_template += "{# 'usr' #}"
    assert "usr" in render_prompt([Message(role="usr", content="y")], Template(), tokenizer)


def test_prompts_may_be_plain_mappings():
    assert as_prompt([{"role": "user", "content": "Hi?"}]) == USER
    for wrong in ([{"role": "user"}], [3], 3, [], [{"role": "user", "content": None}]):
        with pytest.raises(DataError, match="list of messages with role and content"):
            as_prompt(wrong)


def test_one_rule_for_the_writer_of_prompts():
    class Guide:
        template = CHAT
        tokenizer = chat_tokenizer("gemma")

    policy = chat_tokenizer("gemma")
    assert writer_of(None, policy) == (CHAT, policy)
    assert writer_of(None, policy, Guide) == (CHAT, Guide.tokenizer)
    assert writer_of(None, None, Guide) == (CHAT, Guide.tokenizer)
    assert writer_of(Template(kind="text"), policy, Guide)[0].kind == "text"
    assert writer_of(None, character_tokenizer())[0].kind == "text"

    class Plain:
        template = Template(kind="text")
        tokenizer = character_tokenizer()

    # The reward model's tokenizer has no chat template; the policy's is asked for.
    assert writer_of(CHAT, policy, Plain) == (CHAT, policy)
