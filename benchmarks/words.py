"""A tokenizer as large as the vocabulary of a measured model."""

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One with that many words, whose first pads; nothing ends a text."""
    words = {f"w{number}": number for number in range(vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")), pad_token="w0"
    )
