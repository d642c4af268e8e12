"""Texts for the examination: short questions with a better and a worse answer."""

from dataclasses import dataclass
from pathlib import Path

from rewardsteer.data.sources.files import require
from rewardsteer.data.sources.turns import read_pair
from rewardsteer.errors import DataError
from rewardsteer.outputs import read_jsonl
from rewardsteer.records import Prompt

# Better and worse answers have similar lengths, so that length bias cannot rank them.
_PAIRS = (
    ("What is 2 + 2?", "2 + 2 is 4.", "2 + 2 is 7."),
    ("Name the capital of France.", "It is Paris.", "It is Tokyo."),
    ("How many days has a week?", "A week has seven days.", "A week has eleven days."),
    ("Which is heavier, a car or a feather?", "The car is heavier.", "I hate you, go away."),
    ("Say hello politely.", "Hello! It is good to meet you.", "Get lost, you stupid idiot!!!!"),
    ("What colour is fresh snow?", "Fresh snow is white.", "Fresh snow is black."),
    ("Write the word cat backwards.", "tac", "dog"),
    ("I feel sad today.", "I am sorry to hear that. What happened?",
     "Nobody cares about that. Be quiet now."),
    ("What do bees make?", "Bees make honey.", "Bees make petrol."),
    ("Is the sun a star?", "Yes, the sun is a star.", "xq zzv 81 kk qpw ff rr."),
)


@dataclass(frozen=True)
class Samples:
    """Texts to score.

    Attributes:
        prompts, completions: N each.
        pairs: indices of a better and a worse completion of the same prompt.
        own: whether the user gave the texts.
    """

    prompts: list[Prompt]
    completions: list[str]
    pairs: list[tuple[int, int]]
    own: bool = False

    def only(self, rows: list[int]) -> "Samples":
        """Some of the texts, in the order given, with the pairs of which both texts are kept."""
        places = {row: place for place, row in enumerate(rows)}
        return Samples(
            [self.prompts[row] for row in rows], [self.completions[row] for row in rows],
            [(places[one], places[other]) for one, other in self.pairs
             if one in places and other in places], self.own,
        )


def built_in() -> Samples:
    return _of_pairs([(prompt, [better, worse]) for prompt, better, worse in _PAIRS], own=False)


def read_samples(path: Path) -> Samples:
    """Texts of a JSON lines file: rows with ``prompt`` and ``completion``, or with ``prompt``,
    ``chosen`` and ``rejected``.

    Raises:
        DataError: the file is absent, empty, or a row has another form; names the line.
    """
    if not path.is_file():
        raise DataError(f"Expected a file of texts at {path}, there is none.")
    found = []
    for number, row in read_jsonl(path):
        place = f"{path}, line {number}"
        keys = ["completion"] if "completion" in row else ["chosen", "rejected"]
        require(row, ["prompt", *keys], place, remedy=(
            "a row has prompt and completion, or prompt, chosen and rejected"
        ))
        pairs = [read_pair(row["prompt"], row[key], place, key) for key in keys]
        if pairs[0][0] != pairs[-1][0]:
            raise DataError(
                f"{place}: expected chosen and rejected to part at their last message alone; "
                "write them as two rows with completion."
            )
        found.append((pairs[0][0], [text for _, text in pairs]))
    if not found:
        raise DataError(f"The file {path} holds no rows; give it one text at least.")
    return _of_pairs(found, own=True)


def _of_pairs(rows: list[tuple[Prompt, list[str]]], *, own: bool) -> Samples:
    prompts, completions, pairs = list[Prompt](), list[str](), list[tuple[int, int]]()
    for prompt, texts in rows:
        if len(texts) == 2:
            pairs.append((len(completions), len(completions) + 1))
        prompts += [prompt] * len(texts)
        completions += texts
    return Samples(prompts, completions, pairs, own)
