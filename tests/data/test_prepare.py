"""Preparation: counts, drops, splits, blends, exactness, and nothing half-written."""

import json

import datasets
import pytest

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.store import load_manifest, load_set
from rewardsteer.errors import ConfigError, DataError, OutputError
from rewardsteer.records import Comparison
from tests.fakes import character_tokenizer


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs(count, length=15, start=0):
    return [
        {"prompt": f"q{i}", "chosen": "c" * length + str(i), "rejected": "r" * length}
        for i in range(start, start + count)
    ]


def config(path, **changes):
    source = {"name": "pairs", "path": path, "options": {"identical": "drop"}}
    values = {"source": source, "test_fraction": 0.25}
    return DataConfig.model_validate(values | changes)


def test_sets_counts_and_exact_tokens(tmp_path):
    tokenizer = character_tokenizer()
    out = tmp_path / "out"
    manifest = prepare(config(write(tmp_path / "a.jsonl", pairs(8))), tokenizer, out)
    assert manifest == load_manifest(out)
    assert manifest.counts == {
        "train": {"full": 6, "partial": 6, "sft": 6}, "test": {"full": 2, "partial": 2, "sft": 2},
    }
    full, partial = load_set(out, "train", "full"), load_set(out, "train", "partial")
    for row, prefix in zip(full, partial, strict=True):
        assert tokenizer.decode(row["chosen_ids"]) == row["chosen"] + "<eos>"
        assert tokenizer.decode(row["prompt_ids"]) == row["prompt"]
        # From the 11th token to the last before end-of-text, and to the shorter of both.
        assert prefix["chosen_lengths"] == list(range(11, len(row["chosen_ids"])))
        assert prefix["pair_lengths"] == list(range(11, len(row["rejected_ids"]) + 1))


def test_prompts_are_on_one_side_only_and_the_seed_decides(tmp_path):
    rows = [row | {"chosen": row["chosen"] + x} for row in pairs(20) for x in "ab"]
    path = write(tmp_path / "a.jsonl", rows)
    prints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        manifest = prepare(config(path, seed=seed), character_tokenizer(), tmp_path / name)
        prints.append(manifest.fingerprint)
        train = set(load_set(tmp_path / name, "train", "full")["prompt"])
        test = set(load_set(tmp_path / name, "test", "full")["prompt"])
        assert len(train) == 15
        assert len(test) == 5
        assert not train & test
    assert prints[0] == prints[1] != prints[2]


def test_drops_are_counted_never_cut(tmp_path):
    rows = pairs(8)
    rows += [rows[0], {"prompt": "same", "chosen": "x", "rejected": "x"}]
    rows += [{"prompt": "p" * 60, "chosen": "a", "rejected": "b"}]
    rows += [{"prompt": "long", "chosen": "a" * 60, "rejected": "b"}]
    made = prepare(
        config(write(tmp_path / "a.jsonl", rows), max_length=40), character_tokenizer(),
        tmp_path / "out",
    )
    assert made.dropped == {
        "repeated": 1, "with chosen equal to rejected": 1,
        "with a prompt longer than max_length": 1, "longer than max_length": 1,
    }
    assert sum(sets["full"] for sets in made.counts.values()) == 8


def test_overlap_with_the_test_split_is_dropped_from_train(tmp_path):
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "train.jsonl", pairs(6))
    write(tmp_path / "d" / "test.jsonl", pairs(2, length=12))
    made = prepare(config(str(tmp_path / "d")), character_tokenizer(), tmp_path / "out")
    assert made.dropped == {"with a prompt of the test split": 2}
    assert made.counts["train"]["full"] == 4


def test_k_sampled_prefixes(tmp_path):
    path = write(tmp_path / "a.jsonl", pairs(8, length=40))
    prepare(config(path, prefix_count=5), character_tokenizer(), tmp_path / "out")
    for row in load_set(tmp_path / "out", "train", "partial"):
        lengths = row["chosen_lengths"]
        assert len(lengths) == len(set(lengths)) == 5
        assert min(lengths) >= 11
        assert max(lengths) < len(row["chosen_ids"])


def test_blend_follows_the_weights(tmp_path):
    write(tmp_path / "a.jsonl", pairs(400))
    write(tmp_path / "b.jsonl", pairs(400, start=1000))
    made = DataConfig.model_validate({
        "sources": [
            {"name": "pairs", "path": str(tmp_path / "a.jsonl"), "weight": 3},
            {"name": "pairs", "path": str(tmp_path / "b.jsonl"), "weight": 1},
        ],
        "train_rows": 200,
    })
    prepare(made, character_tokenizer(), tmp_path / "out")
    prompts = load_set(tmp_path / "out", "train", "full")["prompt"]
    share = sum(int(prompt[1:]) < 1000 for prompt in prompts) / len(prompts)
    assert len(prompts) == 200
    assert 0.6 < share < 0.9


def test_refusals_leave_nothing_behind(tmp_path):
    path = write(tmp_path / "a.jsonl", pairs(8))
    tokenizer = character_tokenizer()
    with pytest.raises(DataError, match=r"Nothing is left for the train split.*raise max_length"):
        prepare(config(path, max_length=5), tokenizer, tmp_path / "out")
    with pytest.raises(DataError, match=r"raise data\.max_length \(data\.max_length=32 would"):
        prepare(config(path, max_length=5), tokenizer, tmp_path / "out", section="data.")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="Nothing is left"):
        prepare(config(path, max_length=5), tokenizer, tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(ConfigError, match=r"Unknown data source 'pars'.*'pairs'"):
        prepare(DataConfig(source="pars"), tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match=r"'pairs' has no option 'colour'.*Known: name, fields"):
        prepare(
            DataConfig(source={"name": "pairs", "path": path, "options": {"colour": 1}}),
            tokenizer, tmp_path / "new",
        )
    prepare(config(path), tokenizer, tmp_path / "out")
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(OutputError, match=r"not empty.*--overwrite"):
        prepare(config(path), tokenizer, tmp_path / "out")
    assert sorted((tmp_path / "out").rglob("*")) == before
    with pytest.raises(DataError, match="at least two"):
        prepare(config(write(tmp_path / "one.jsonl", pairs(1))), tokenizer, tmp_path / "one")


def test_rows_that_were_all_dropped_are_named(tmp_path):
    path = str(tmp_path / "a.jsonl")
    source = {"name": "pairs", "path": path, "options": {"identical": "drop"}}
    row = {"prompt": "p", "chosen": "a", "rejected": "a"}
    (tmp_path / "a.jsonl").write_text((json.dumps(row) + "\n") * 3)
    said = r"0 prompt\(s\) after dropping rows \(3 with chosen equal to rejected\); expected at"
    with pytest.raises(DataError, match=said):
        prepare(DataConfig(source=source), character_tokenizer(), tmp_path / "out")


def test_damaged_prepared_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="has no manifest"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        load_manifest(tmp_path)
    with pytest.raises(DataError, match="not there"):
        load_set(tmp_path, "train", "full")


def test_a_cache_that_cannot_be_written_is_not_taken_for_damaged_data(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", pairs(8))
    prepare(config(path), character_tokenizer(), tmp_path / "out")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", f"{path}/cache")
    with pytest.raises(OutputError, match=r"its cache .*a\.jsonl/cache: .*HF_DATASETS_CACHE"):
        load_set(tmp_path / "out", "train", "full")
    (tmp_path / "out" / "train" / "full.parquet").write_bytes(b"PAR1" + bytes(100))
    monkeypatch.undo()
    with pytest.raises(DataError, match="cannot be read"):
        load_set(tmp_path / "out", "train", "full")


def graded_by_age(split, *, path=None, reading=None, rows=8):
    """A source of one's own: one file, named by its place, with numbers that nobody else knows."""
    for index in range(rows):
        yield Comparison(
            id=f"{split}{index}", prompt=f"{split} {index}", chosen="good", rejected="bad",
            extras={"age": index / 2} if index else {"score": 3.0},
        )


def test_numbers_of_a_source_elsewhere_travel_to_the_batch(tmp_path):
    settings = DataConfig.model_validate({"source": f"{__name__}:graded_by_age"})
    tokenizer = character_tokenizer()
    prepare(settings, tokenizer, tmp_path / "out")
    for name in ("full", "partial"):
        rows = sorted(load_set(tmp_path / "out", "train", name), key=lambda row: row["id"])[:3]
        batch = to_batch(PairCollator(tokenizer.pad_token_id)(rows))
        assert batch.extras["age"][1:].tolist() == [0.5, 1.0]
        assert batch.extras["score"][0] == 3.0
        assert batch.extras["age"][0].isnan()
        assert batch.extras["score"][1:].isnan().all()


def test_columns_of_numbers_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", [row | {"weight": "0.25"} for row in pairs(8)])
    source = {"name": "pairs", "path": path, "options": {"extras": ["weight"]}}
    prepare(DataConfig.model_validate({"source": source}), character_tokenizer(), tmp_path / "out")
    assert {row["weight"] for row in load_set(tmp_path / "out", "train", "full")["extras"]} == {.25}
    source["options"]["extras"] = ["height"]
    with pytest.raises(DataError, match=r"line 1: expected the field\(s\) height"):
        prepare(DataConfig.model_validate({"source": source}), character_tokenizer(),
                tmp_path / "other")


def test_sets_have_no_metadata_that_older_datasets_cannot_read(tmp_path):
    """Newer versions of datasets write features (``List``) into Parquet that older ones refuse; a
    plain schema is read by all."""
    import pyarrow.parquet as pq

    (tmp_path / "a.jsonl").write_text("".join(
        json.dumps({"prompt": f"q{i}", "chosen": f"a{i}", "rejected": "b"}) + "\n"
        for i in range(12)
    ))
    config = DataConfig(source={"name": "pairs", "path": str(tmp_path / "a.jsonl")}, num_proc=2)
    prepare(config, character_tokenizer(), tmp_path / "out")
    files = list((tmp_path / "out").rglob("*.parquet"))
    assert files
    for file in files:
        assert b"huggingface" not in (pq.read_schema(file).metadata or {}), file
