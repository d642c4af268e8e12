"""Text that grows token by token is the text decoded as a whole, cut at stop strings."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rewardsteer.data.template import Template
from rewardsteer.decoding.detokenizer import IncrementalDetokenizer

TEXTS = [
    "Grüße, 東京 🙂🙃!", "naïve café 👩‍👩‍👧 ok",
    "plain words only", "  spaces   inside ", "🙂" * 5,
]


def bytes_tokenizer():
    """Every byte a token, so most characters of TEXTS lie in several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def words_tokenizer():
    """As SentencePiece: a text's first word loses the space that its token holds."""
    words = {word for text in TEXTS for word in text.split()}
    vocabulary = {token: index for index, token in enumerate(
        ["<eos>", "<unk>", *sorted("▁" + word for word in words)]
    )}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


TOKENIZERS = {"bytes": bytes_tokenizer(), "words": words_tokenizer()}


def whole_of(tokenizer, prompt_ids, ids):
    before = tokenizer.decode(prompt_ids, skip_special_tokens=True)
    return tokenizer.decode([*prompt_ids, *ids], skip_special_tokens=True)[len(before):]


def grow(tokenizer, prompt_ids, ids, template=None, stops=()):
    """Pieces, the whole text, and the growing one."""
    template = template or Template()
    whole = whole_of(tokenizer, prompt_ids, ids)
    opening, _, closing = template.response.partition("{response}")
    whole = whole.removeprefix(opening).removesuffix(closing)
    text = IncrementalDetokenizer(tokenizer, prompt_ids, template, stops)
    pieces = []
    for count in range(1, len(ids)):
        pieces.append(text.add(ids[:count]))
        if text.stopped:
            break
    pieces.append(text.finish(ids, whole))
    return pieces, whole, text


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("answer", TEXTS)
def test_pieces_are_the_whole(kind, answer):
    tokenizer = TOKENIZERS[kind]
    for prompt in ("", *TEXTS[:3]):
        prompt_ids, ids = tokenizer.encode(prompt), tokenizer.encode(answer)
        pieces, whole, text = grow(tokenizer, prompt_ids, ids)
        assert "".join(pieces) == text.text == whole
        assert "\ufffd" not in "".join(pieces)
        assert len(ids) == 1 or sum(map(bool, pieces)) > 1


def test_an_unfinished_character_comes_last():
    tokenizer = TOKENIZERS["bytes"]
    ids = tokenizer.encode("a🙂")[:-1]
    pieces, whole, _ = grow(tokenizer, tokenizer.encode("b"), ids)
    assert "".join(pieces) == whole == "a\ufffd"
    assert pieces[-1] == "\ufffd"


def test_stop_strings_never_show():
    tokenizer, draw = TOKENIZERS["bytes"], random.Random(0)
    for _ in range(200):
        answer = "".join(draw.choices("ab🙂", k=30))
        stops = ["".join(draw.choices("ab🙂", k=draw.randint(1, 4))) for _ in range(2)]
        pieces, whole, text = grow(tokenizer, tokenizer.encode("x"), tokenizer.encode(answer),
                                   stops=stops)
        found = [whole.index(stop) for stop in stops if stop in whole]
        assert text.stopped == bool(found)
        assert "".join(pieces) == text.text == whole[: min(found, default=len(whole))]


@pytest.mark.parametrize("response", [" {response}\n", "<<{response}>>"])
def test_what_the_template_adds_is_left_out(response):
    tokenizer, template = TOKENIZERS["bytes"], Template(response=response)
    for inner in ("hello > there", "", "x>", "no\nline"):
        for written in (response.replace("{response}", inner), inner):
            ids = tokenizer.encode(written) or tokenizer.encode(" ")
            pieces, whole, _ = grow(tokenizer, tokenizer.encode("Q:"), ids, template)
            assert "".join(pieces) == whole


def test_text_comes_as_soon_as_it_is_certain():
    tokenizer = TOKENIZERS["bytes"]
    text = IncrementalDetokenizer(tokenizer, tokenizer.encode("x"), Template(), ["stop"])
    given = []
    for count in range(1, 9):
        given.append(text.add(tokenizer.encode("a stone!")[:count]))
    assert given == ["a", " ", "", "", "", "ston", "e", "!"]
