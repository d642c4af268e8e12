"""Write a Hugging Face tokenizer folder from a bare ``tokenizer.json[.gz]`` of GPT-NeoX."""

import gzip
import sys
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast


def main(source: str, out: str) -> None:
    content = Path(source).read_bytes()
    if source.endswith(".gz"):
        content = gzip.decompress(content)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(content.decode("utf-8")),
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        pad_token="<|padding|>",
    ).save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
