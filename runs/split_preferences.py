"""Split public preference pairs into rows for guides, other rows for a judge, and held-out prompts.

    python runs/split_preferences.py DATA OUT SEED GUIDE JUDGE PROMPTS LONGEST

DATA is a folder with ``preference/`` (Anthropic HH harmless, LLaMA-Factory's demo pairs, PandaLM,
LLMBar's natural rows). A prompt and all its pairs go to one part. The held-out ones are the same
for all seeds; SEED draws the others. OUT gets ``guide/`` and ``judge/`` (GUIDE and JUDGE pairs in
``train.jsonl``, the held-out pairs in both ``test.jsonl``), ``prompts.jsonl`` (PROMPTS prompts of
held-out pairs) and ``samples.jsonl`` (the prompts of the guide's first pairs, at most as many, from
which a guide is distilled). Transcripts become conversations, so that the chat template writes
them. Prompts and responses of more than LONGEST words are left out, so that two processor cores
suffice.
"""

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rewardsteer.data.sources import hh, judged
from rewardsteer.records import Comparison

TURNS = {"Human": "user", "Assistant": "assistant"}
Pair = dict[str, object]


def conversation(prompt: object) -> list[dict[str, str]]:
    """Messages of a transcript (``\\n\\nHuman: …\\n\\nAssistant: …``), of a text or of messages."""
    if not isinstance(prompt, str):
        return [message.model_dump() for message in prompt]
    if not prompt.startswith("\n\nHuman:"):
        return [{"role": "user", "content": prompt}]
    messages = []
    for turn in prompt.strip().split("\n\n"):
        name, colon, text = turn.partition(":")
        if colon and name in TURNS:
            messages.append({"role": TURNS[name], "content": text.strip()})
        else:  # a blank line within a turn
            messages[-1]["content"] += "\n\n" + turn
    return messages[:-1] if not messages[-1]["content"] else messages


def pairs(data: Path, longest: int) -> Iterator[Pair]:
    """All usable pairs of texts of at most so many words, with the set that each comes from."""
    folder = data / "preference"
    for name, source, file in (
        ("hh_harmless", hh, "hh_rlhf_harmless_base_test.jsonl.gz"),
        ("llamafactory", judged, "llamafactory_dpo_en_demo.json.gz"),
        ("pandalm", judged, "pandalm_testset-v1.json.gz"),
        ("llmbar", judged, "llmbar/natural.json.gz"),
    ):
        rows = source.load("train", path=str(folder / file))
        yield from filter(None, (_usable(row, name, longest) for row in rows))


def _usable(row: Comparison, name: str, longest: int) -> Pair | None:
    messages = conversation(row.prompt)
    texts = [" ".join(message["content"] for message in messages), row.chosen, row.rejected]
    right = messages[0]["role"] in ("user", "system") and messages[-1]["role"] == "user"
    fits = all(0 < len(text.split()) <= longest for text in texts)
    if not (right and fits):
        return None
    answers = {
        side: [{"role": "assistant", "content": text.strip()}]
        for side, text in (("chosen", row.chosen), ("rejected", row.rejected))
    }
    return {"prompt": messages, **answers, "subset": name}


def main(
    data: str, out: str, seed: str, guide: str, judge: str, prompts: str, longest: str
) -> None:
    """Write the three parts."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs(Path(data), int(longest)):
        groups.setdefault(json.dumps(pair["prompt"]), []).append(pair)
    # The held-out prompts do not depend on the seed, so that methods can be paired over seeds.
    held_out = _shuffled(groups, 0)[: 4 * int(prompts)]
    apart = set(held_out)
    rest = [key for key in _shuffled(groups, int(seed)) if key not in apart]
    test = [pair for key in held_out for pair in groups[key]]
    # Every third prompt goes to the guides, so that both parts have the same mixture of sets.
    learned, judged_by = rest[::3], [key for number, key in enumerate(rest) if number % 3]
    for name, own, count in (("guide", learned, int(guide)), ("judge", judged_by, int(judge))):
        rows = [pair for key in own for pair in groups[key]][:count]
        if len(rows) < count:
            sys.exit(f"{count} pairs were asked for {name}; the data has {len(rows)}")
        _write(Path(out) / name / "train.jsonl", rows)
        _write(Path(out) / name / "test.jsonl", test)
    for name, keys in (("prompts", held_out), ("samples", learned)):
        _write(Path(out) / f"{name}.jsonl", [
            {"id": str(number), "prompt": json.loads(key)}
            for number, key in enumerate(keys[: int(prompts)])
        ])


def _shuffled(keys: Iterable[str], seed: int) -> list[str]:
    ordered = sorted(keys)
    random.Random(seed).shuffle(ordered)
    return ordered


def _write(path: Path, rows: list[Pair]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
