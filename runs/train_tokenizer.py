"""Train a small byte-level BPE tokenizer on questions and solutions; each digit is a token.

    python runs/train_tokenizer.py SIZE OUT FILE…     FILE: JSONL with prompt and completion
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def main(size: str, out: str, *files: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=int(size), special_tokens=["<eos>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_texts(files), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(out)


def _texts(files: tuple[str, ...]) -> Iterator[str]:
    for file in files:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield row["prompt"]
            yield row["completion"]


if __name__ == "__main__":
    main(*sys.argv[1:])
