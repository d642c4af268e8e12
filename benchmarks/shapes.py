"""Pairs to measure on: random tokens with published lengths, or real rows.

Real rows come from the folder of public data that DATA names, tokenized with its GPT-NeoX
tokenizer. Their ids are taken modulo the vocabulary of the measured model: lengths and common
beginnings are real, and no embedding table of 50,000 rows dominates the measurement.
"""

import functools
import gzip
import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import CannotRun
from rewardsteer.data.sets import TokenizedPair, encode_comparison
from rewardsteer.data.sources import SOURCES
from rewardsteer.data.template import Template

DATA = Path(os.environ.get("DATA", "../shared/data"))
TOKENIZER = "tokenizers/gpt-neox-20b/tokenizer.json.gz"
# The published limit; longer rows are dropped, as in training.
MAX_LENGTH = 512
# Number of special tokens of the measured models: padding, beginning and end of text.
_SPECIAL = 3


@dataclass(frozen=True)
class Synthetic:
    """Random tokens; lengths are drawn around the means.

    Attributes:
        name: for the table.
        prompt, response: mean lengths in tokens.
        deviation: standard deviation of a length as a share of its mean; draws are cut at two
            standard deviations.
    """

    name: str
    prompt: int
    response: int
    deviation: float = 0.25

    def pairs(self, vocabulary: int, seed: int) -> Iterator[TokenizedPair]:
        """An endless stream of pairs."""
        rng = random.Random(seed)

        def ids(mean: int) -> list[int]:
            far = min(max(rng.gauss(0.0, 1.0), -2.0), 2.0)
            count = max(round(mean * (1 + self.deviation * far)), 1)
            return rng.choices(range(_SPECIAL, vocabulary), k=count)

        for number in itertools.count():
            yield TokenizedPair(
                str(number), ids(self.prompt), ids(self.response), ids(self.response), 0.0
            )


@dataclass(frozen=True)
class Real:
    """Rows of a file under DATA, shuffled.

    Attributes:
        name: for the table.
        source: the data source that reads the file.
        file: its path under DATA.
        template: how prompts are written.
    """

    name: str
    source: str
    file: str
    template: Template

    def pairs(self, vocabulary: int, seed: int) -> Iterator[TokenizedPair]:
        """Pairs of at most `MAX_LENGTH` tokens; raises `CannotRun` where the data is missing."""
        if not (DATA / self.file).exists() or not (DATA / TOKENIZER).exists():
            raise CannotRun(f"no real rows in {DATA}; set DATA to their folder.")
        rows = list(SOURCES.get(self.source)("train", path=str(DATA / self.file)))
        random.Random(seed).shuffle(rows)
        for row in rows:
            pair = encode_comparison(row, self.template, tokenizer())
            prompt, chosen, rejected = (
                [_SPECIAL + token % (vocabulary - _SPECIAL) for token in ids]
                for ids in (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids)
            )
            if len(prompt) + max(len(chosen), len(rejected)) <= MAX_LENGTH:
                yield TokenizedPair(pair.id, prompt, chosen, rejected, pair.margin)


Shape = Synthetic | Real

TLDR = Synthetic("TL;DR shape (prompt 350, response 35)", 350, 35)
ULTRAFEEDBACK = Synthetic("UltraFeedback shape (prompt 150, response 250)", 150, 250)
HH_ROWS = Real(
    "HH rows (real)", "hh", "preference/hh_rlhf_harmless_base_test.jsonl.gz", Template(),
)
GSM8K_ROWS = Real(
    "GSM8K rows (real)", "graded", "gsm8k/example_model_solutions.jsonl.gz",
    Template(prompt="{prompt}\n"),
)
ULTRAFEEDBACK_ROWS = Real(
    "UltraFeedback-like rows (real)", "judged", "preference/llamafactory_dpo_en_demo.json.gz",
    Template(),
)


def take(
    shape: Shape, count: int, vocabulary: int, *, longer_than: int = 0, seed: int = 0
) -> list[TokenizedPair]:
    """``count`` pairs whose chosen responses have more than ``longer_than`` tokens."""
    found = (pair for pair in shape.pairs(vocabulary, seed) if len(pair.chosen_ids) > longer_than)
    pairs = list(itertools.islice(found, count))
    if len(pairs) < count:
        raise CannotRun(f"{shape.name}: {count} pairs are needed, got {len(pairs)}.")
    return pairs


@functools.cache
def tokenizer() -> Any:
    """The GPT-NeoX tokenizer under DATA."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    text = gzip.decompress((DATA / TOKENIZER).read_bytes()).decode()
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text), eos_token="<|endoftext|>",
        pad_token="<|padding|>",
    )
