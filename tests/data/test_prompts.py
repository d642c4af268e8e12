"""Prompt files: of prepared data, of sources, and the published TL;DR ones."""

import json

import pytest
from datasets import Dataset

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.prompts import (
    draw,
    prepared_prompts,
    published_prompts,
    source_prompts,
    write_prompts,
)
from rewardsteer.errors import ConfigError, DataError, OutputError
from tests.fakes import character_tokenizer


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_prompts_of_prepared_data_and_of_a_source(tmp_path):
    rows = [{"prompt": f"q{i // 2}", "chosen": f"a{i}", "rejected": "b"} for i in range(16)]
    path = write(tmp_path / "a.jsonl", rows)
    config = DataConfig(source={"name": "pairs", "path": path}, test_fraction=0.5)
    prepare(config, character_tokenizer(), tmp_path / "out")
    found = prepared_prompts(tmp_path / "out", "test")
    assert len(found) == 4
    for row in found:
        assert character_tokenizer().decode(row["prompt_ids"]) == row["prompt"]
    every = source_prompts("pairs", path, "train")
    assert [row["prompt"] for row in every] == [f"q{i}" for i in range(8)]
    with pytest.raises(DataError, match="has no test split"):
        source_prompts("pairs", path, "test")
    file = tmp_path / "p.jsonl"
    write_prompts(every, file, overwrite=False)
    assert [json.loads(line) for line in file.read_text().splitlines()] == every
    with pytest.raises(OutputError, match="--overwrite"):
        write_prompts(every, file, overwrite=False)


def test_published_prompts_are_those_that_datasets_draws(tmp_path):
    rows = [{"prompt": f"POST: {i}\nTL;DR:", "label": "x"} for i in range(250)]
    path = write(tmp_path / "a.jsonl", rows)
    theirs = Dataset.from_list(rows).shuffle(seed=44).select(range(100))["prompt"]
    found = [row["prompt"] for row in published_prompts("tldr", path)]
    assert found == [text.removesuffix("\nTL;DR:") for text in theirs]
    with pytest.raises(ConfigError, match="known: tldr"):
        published_prompts("hh", path)
    assert draw([{"a": 1}], None, 0) == [{"a": 1}]
