"""Blends, ids, counts that add up, and preparation that does not depend on how it is spread."""

import errno
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.data import shards
from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.segments import SegmentTokenizer, cuts_at_spaces
from rewardsteer.data.selection import interleave
from rewardsteer.data.store import load_manifest, load_set
from rewardsteer.data.store_checks import check_recipe, check_template, check_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.errors import ConfigError, DataError, MismatchError, OutputError
from tests.data.test_boundaries import neox  # noqa: F401
from tests.fakes import character_tokenizer


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs(tag, count):
    return [
        {"prompt": f"{tag} {i}", "chosen": f"good {tag} {i}", "rejected": f"bad {tag} {i}"}
        for i in range(count)
    ]


def two(tmp_path, first, second, **changes):
    sources = [
        {"name": "pairs", "path": write(tmp_path / f"{name}.jsonl", rows)}
        for name, rows in (("a", first), ("b", second))
    ]
    for source, weight in zip(sources, changes.pop("weights", (1, 1)), strict=True):
        source["weight"] = weight
    return DataConfig.model_validate({"sources": sources, **changes})


def adds_up(manifest):
    kept = sum(sets["full"] for sets in manifest.counts.values())
    return manifest.read + manifest.repeated == kept + sum(manifest.dropped.values())


def every(folder, column):
    sets = [load_set(folder, split, "full") for split in ("train", "test")]
    return [value for rows in sets for value in rows[column]]


def test_sources_are_concatenated_and_ids_differ(tmp_path):
    made = prepare(
        two(tmp_path, pairs("a", 40), pairs("b", 400)), character_tokenizer(), tmp_path / "out"
    )
    assert made.counts["train"]["full"] + made.counts["test"]["full"] == 440
    assert (made.read, made.repeated, made.dropped) == (440, 0, {})
    ids = every(tmp_path / "out", "id")
    assert len(set(ids)) == 440
    assert {id.split("/")[0] for id in ids} == {"pairs1", "pairs2"}


def test_ids_of_ones_own_stay_where_they_differ(tmp_path):
    rows = [row | {"id": f"mine-{i // 2}"} for i, row in enumerate(pairs("a", 8))]
    other = [row | {"id": f"other-{i}"} for i, row in enumerate(pairs("b", 8))]
    prepare(two(tmp_path, rows, other), character_tokenizer(), tmp_path / "out")
    ids = every(tmp_path / "out", "id")
    assert len(set(ids)) == 16
    assert {f"other-{i}" for i in range(8)} <= set(ids)
    assert {id for id in ids if "mine" in id} == {
        f"mine-{i}{second}" for i in range(4) for second in ("", "#2")
    }


@pytest.mark.parametrize(("rule", "kept", "repeated"), [
    ("concatenate", 240, 0), ("weighted", 240, 0), ("first_exhausted", None, 0),
    ("all_exhausted", None, None),
])
def test_every_rule_adds_up(tmp_path, rule, kept, repeated):
    config = two(tmp_path, pairs("a", 40), pairs("b", 200), blend=rule, test_fraction=0.1)
    made = prepare(config, character_tokenizer(), tmp_path / "out")
    assert adds_up(made)
    rows = sum(sets["full"] for sets in made.counts.values())
    if kept is not None:
        assert (rows, made.repeated) == (kept, repeated)
    elif rule == "first_exhausted":
        assert made.dropped["left over when a source ran dry"] == 240 - rows > 100
    else:
        assert made.repeated == rows - 240 > 50
    ids = every(tmp_path / "out", "id")
    assert len(set(ids)) == len(ids)
    # Each test row is evaluated once, whatever the rule.
    assert made.counts["test"]["full"] == 24


@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=4), st.integers(0, 99),
    st.sampled_from(["weighted", "first_exhausted", "all_exhausted"]),
)
def test_interleaving_keeps_its_rule(lengths, seed, rule):
    weights = np.arange(1, len(lengths) + 1)
    drawn = interleave(np.array(lengths), weights, rule, np.random.default_rng(seed))
    counts = np.bincount(drawn, minlength=len(lengths))
    before = np.bincount(drawn[:-1], minlength=len(lengths))
    if rule == "weighted":
        assert counts.tolist() == lengths
    elif rule == "first_exhausted":
        assert (counts == lengths).sum() == 1
        assert (counts <= lengths).all()
    else:
        assert (counts >= lengths).all()
        assert not (before >= lengths).all()


def test_rows_are_compared_across_sources(tmp_path):
    rows = pairs("a", 20)
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:5]]
    config = two(tmp_path, rows, rows[:8] + turned)
    made = prepare(config, character_tokenizer(), tmp_path / "out")
    one = DataConfig(source={
        "name": "pairs", "path": write(tmp_path / "c.jsonl", rows + rows[:8] + turned)
    })
    alike = prepare(one, character_tokenizer(), tmp_path / "one")
    assert made.dropped == alike.dropped == {"repeated": 8}
    texts = [Counter(zip(every(tmp_path / n, "chosen"), every(tmp_path / n, "prompt"), strict=True))
             for n in ("out", "one")]
    assert texts[0] == texts[1]
    train, test = (set(load_set(tmp_path / "out", s, "full")["prompt"]) for s in ("train", "test"))
    assert not train & test


def test_weights_that_nothing_uses_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not used by blend=concatenate"):
        two(tmp_path, pairs("a", 4), pairs("b", 4), weights=(1, 2), blend="concatenate")


def test_limits_are_counted(tmp_path):
    config = two(tmp_path, pairs("a", 40), pairs("b", 40), train_rows=10, test_rows=2)
    made = prepare(config, character_tokenizer(), tmp_path / "out")
    assert made.dropped == {"beyond train_rows": 66, "beyond test_rows": 2}
    assert adds_up(made)


@pytest.fixture(scope="module")
def words():
    """Texts that a byte-level tokenizer cuts at spaces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    texts = [f"good bad a {i} b of the and\n\n question, answer" for i in range(300)]
    made.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<eos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<eos>", pad_token="<pad>"
    )


def test_the_rows_do_not_depend_on_processes_or_on_the_fast_way(tmp_path, words, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 700)
    config = two(tmp_path, pairs("a", 1500), pairs("b", 1500), prefix_start=0, prefix_count=2)
    made = [
        prepare(config.model_copy(update={"num_proc": n}), words, tmp_path / str(n)) for n in (1, 3)
    ]
    monkeypatch.setattr("rewardsteer.data.prepare._WORTH_A_TRIAL", 10**9)
    made.append(prepare(config, words, tmp_path / "plain"))
    assert made[0] == made[1] == made[2]
    assert cuts_at_spaces(words)
    assert (tmp_path / "1/train/full-00004-of-00005.parquet").exists()
    rows = [load_set(tmp_path / name, "train", "partial").to_list() for name in ("1", "3", "plain")]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == made[0].counts["train"]["partial"] == 2850
    (tmp_path / "1/train/full-00002-of-00005.parquet").unlink()
    with pytest.raises(DataError, match="not there as a whole"):
        load_set(tmp_path / "1", "train", "full")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.booleans())
def test_pieces_give_the_ids_of_the_whole(neox, words, texts, special):  # noqa: F811
    for tokenizer in (neox, words):
        ours = SegmentTokenizer(tokenizer)(texts, add_special_tokens=special)["input_ids"]
        assert ours == tokenizer(texts, add_special_tokens=special)["input_ids"]


def test_tokenizers_that_cut_elsewhere_are_called_themselves(neox, words):  # noqa: F811
    assert cuts_at_spaces(neox)
    assert not cuts_at_spaces(character_tokenizer())
    neox_like = json.loads(words.backend_tokenizer.to_str())
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    for change in (
        {"pre_tokenizer": None}, {"normalizer": {"type": "Replace", "pattern": {"String": " "},
                                                  "content": "_"}},
        {"pre_tokenizer": neox_like["pre_tokenizer"] | {"add_prefix_space": True}},
    ):
        other = Tokenizer.from_str(json.dumps(neox_like | change))
        assert not cuts_at_spaces(PreTrainedTokenizerFast(tokenizer_object=other))


def test_another_vocabulary_of_the_same_size_is_refused(tmp_path):
    tokenizer = character_tokenizer()
    source = {"name": "pairs", "path": write(tmp_path / "a.jsonl", pairs("a", 8))}
    made = prepare(DataConfig(source=source), tokenizer, tmp_path / "out")
    check_tokenizer(made, character_tokenizer(), tmp_path)
    letters = sorted(set(tokenizer.get_vocab()) - {"<eos>", "<unk>", "<pad>"}, reverse=True)
    other = character_tokenizer(characters="".join(letters))
    assert len(other) == len(tokenizer)
    with pytest.raises(DataError, match="tokens or their ids are others"):
        check_tokenizer(made, other, tmp_path)
    # A padding token that training adds is no difference.
    added = character_tokenizer()
    added.add_special_tokens({"pad_token": "<|pad|>"})
    check_tokenizer(made, added, tmp_path)


def test_another_template_is_refused(tmp_path):
    tokenizer = character_tokenizer()
    source = {"name": "pairs", "path": write(tmp_path / "a.jsonl", pairs("a", 8))}
    made = prepare(DataConfig(source=source), tokenizer, tmp_path / "out")
    check_recipe(made, Template(kind="text"), tokenizer, tmp_path)
    check_recipe(made, None, tokenizer, tmp_path)
    differs = r"\(prompt: '{prompt}' in the data, '{prompt}!' here\).*data=null"
    with pytest.raises(MismatchError, match=differs):
        check_recipe(made, Template(prompt="{prompt}!"), tokenizer, tmp_path)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<eos>{% endfor %}"
    chat = prepare(DataConfig(source=source), tokenizer, tmp_path / "chat")
    check_template(chat, Template(kind="chat"), tmp_path, "rm", tokenizer)
    tokenizer.chat_template += "x"
    with pytest.raises(MismatchError, match="another chat template"):
        check_template(chat, Template(kind="chat"), tmp_path, "rm", tokenizer)
    with pytest.raises(MismatchError, match="another chat template"):
        check_recipe(chat, None, tokenizer, tmp_path)


def test_losses_to_max_length_are_told_with_the_remedy(tmp_path):
    rows = pairs("a", 20) + [
        {"prompt": f"p{i}", "chosen": "c" * 100, "rejected": "r"} for i in range(20)
    ]
    config = DataConfig(
        source={"name": "pairs", "path": write(tmp_path / "a.jsonl", rows)}, max_length=40,
    )
    made = prepare(config, character_tokenizer(), tmp_path / "out")
    assert made.notes == [
        "20 of 40 comparisons are longer than max_length=40 and were dropped; max_length=128 "
        "would keep 40."
    ]


def test_faults_of_rows_are_named_or_dropped(tmp_path):
    tokenizer = character_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system role') }}"
        "{% endif %}{{ m.content }}<eos>{% endfor %}"
    )
    bad = {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
           "chosen": [{"role": "assistant", "content": "a"}],
           "rejected": [{"role": "assistant", "content": "b"}]}
    path = write(tmp_path / "a.jsonl", [*pairs("a", 8), bad, bad | {"margin": -1}])
    config = DataConfig(source={"name": "pairs", "path": path}, test_fraction=0.2)
    with pytest.raises(DataError, match="line 10: expected a margin"):
        prepare(config, tokenizer, tmp_path / "out")
    some = DataConfig(
        source={"name": "pairs", "path": write(tmp_path / "b.jsonl", [*pairs("a", 8), bad])},
        test_fraction=0.2,
    )
    with pytest.raises(DataError, match=r"b\.jsonl, line 9: .*No system role"):
        prepare(some, tokenizer, tmp_path / "out")
    made = prepare(config.model_copy(update={"on_error": "drop"}), tokenizer, tmp_path / "out")
    assert made.dropped == {"with a fault": 2}
    assert adds_up(made)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    config = two(tmp_path, pairs("a", 8), pairs("b", 8))
    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(OutputError, match="No space left on device; free disk space"):
        prepare(config, character_tokenizer(), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_full_folder_names_no_resume(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    config = two(tmp_path, pairs("a", 4), pairs("b", 4))
    with pytest.raises(OutputError) as caught:
        prepare(config, character_tokenizer(), tmp_path / "out")
    assert "--resume" not in str(caught.value)


def test_a_saved_folder_is_no_prepared_one(tmp_path):
    (tmp_path / "dataset_dict.json").touch()
    with pytest.raises(DataError, match=r"data prepare pairs --path.*save_to_disk"):
        load_manifest(tmp_path)


def test_an_unknown_option_is_named(tmp_path):
    source = {"name": "pairs", "path": "x", "options": {"colour": 1}}
    with pytest.raises(ConfigError, match="colour"):
        prepare(DataConfig(source=source), character_tokenizer(), tmp_path / "out")


@pytest.mark.parametrize(("name", "options"), [
    ("pairs", {"fields": "prompt"}), ("pairs", {"fields": {"prompt": 3}}),
    ("pairs", {"identical": "dorp"}), ("pairs", {"parted": "frist"}),
    ("pairs", {"extras": "score"}),
    ("graded", {"max_pairs": 0}), ("graded", {"seed": -1}), ("graded", {"max_pairs": "few"}),
    ("helpsteer", {"min_margin": float("nan")}), ("ratings", {"together": 0}),
    ("stepwise", {"separator": 3}), ("arithmetic", {"rows": 0}), ("arithmetic", {"task_seed": -1}),
    ("arithmetic", {"wrong_probability": float("nan")}), ("arithmetic", {"min_operations": 0}),
])
def test_an_option_of_another_type_or_range_is_named(tmp_path, name, options):
    source = {"name": name, "options": options}
    if name != "arithmetic":
        source["path"] = str(tmp_path / "x.jsonl")
        (tmp_path / "x.jsonl").write_text("{}\n")
    [option] = options
    with pytest.raises(ConfigError, match=option.removeprefix("task_")):
        prepare(DataConfig(source=source), character_tokenizer(), tmp_path / "out")
    assert not any((tmp_path / "out").glob("*"))
