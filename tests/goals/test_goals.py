"""Goal states against direct computations: made, interrupted, added up, saved, refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.store import load_manifest, load_set
from rewardsteer.data.template import Template
from rewardsteer.errors import (
    ConfigError,
    DataError,
    MismatchError,
    OutputError,
    RewardsteerError,
)
from rewardsteer.goals import build as build_module
from rewardsteer.goals.build import build_goals
from rewardsteer.goals.config import GoalConfig
from rewardsteer.goals.files import (
    check_goal,
    load_goal,
    load_goals,
    read_npy,
    save_goals,
    write_npy,
)
from rewardsteer.goals.goal_state import GoalState, Provenance, weighted_sum
from rewardsteer.goals.spool import cluster
from rewardsteer.models.checkpoint import CheckpointCard, fingerprint, read_card
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from tests.fakes import character_tokenizer, tiny_causal_lm

ROWS = 30


def make_reward_model(folder, seed=0, template=None):
    tokenizer = build_tokenizer()
    base = folder.with_name(f"{folder.name}-base")
    tiny_causal_lm(vocab_size=len(tokenizer), seed=seed).save_pretrained(base)
    model = RewardModel.from_base(base, HeadConfig())
    card = CheckpointCard(
        head=HeadConfig(), template=(template or Template()).model_dump(mode="json")
    )
    model.save_pretrained(folder, tokenizer, card)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A reward model, prepared arithmetic pairs, and prepared pairs with subsets."""
    folder = tmp_path_factory.mktemp("goals")
    make_reward_model(folder / "reward")
    tokenizer = build_tokenizer()
    arithmetic = {"name": "arithmetic", "options": {"rows": ROWS, "max_operations": 5}}
    prepare(DataConfig(source=arithmetic, drop_overlap=False), tokenizer, folder / "data")
    pairs = [
        {"prompt": f"{i}+{i % 3}=", "chosen": "1;" * (i % 4 + 1), "rejected": "2" * (i % 5 + 1),
         "subset": ["helpful", "honest", ""][i % 3]}
        for i in range(10)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    source = {"name": "pairs", "path": str(folder / "pairs.jsonl")}
    prepare(
        DataConfig(source=source, drop_overlap=False, test_fraction=0.1), tokenizer,
        folder / "subsets",
    )
    return folder


@pytest.fixture(scope="module")
def scorer(world):
    return load_scorer(world / "reward")


def state_of(scorer, ids, position=-1):
    """One state of one unpadded row, from the backbone itself."""
    with torch.no_grad():
        read = scorer.reward_model.backbone(input_ids=torch.tensor([ids])).last_hidden_state
    return read[0, position].double()


def plain_states(scorer, data, side="chosen", split="train"):
    return torch.stack([
        state_of(scorer, row["prompt_ids"] + row[f"{side}_ids"])
        for row in load_set(data, split, "full")
    ])


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(
        found.double(), expected.double(), atol=tolerance, rtol=tolerance
    )


def make(scorer, data, work, resume=False, **options):
    return build_goals(scorer, data, GoalConfig(**options), work, resume=resume)


class TestMade:
    def test_mean_is_the_mean_of_last_states(self, world, scorer, tmp_path):
        goals = make(scorer, world / "data", tmp_path / "work")
        assert list(goals) == ["preferred"]
        goal, expected = goals["preferred"], plain_states(scorer, world / "data")
        assert goal.vectors.dtype == torch.float32
        close(goal.vectors, expected.mean(0, keepdim=True))
        made = goal.provenance
        assert (made.kind, made.count) == ("mean", len(expected))
        assert made.model_fingerprint == fingerprint(world / "reward")
        assert made.data_fingerprint == load_manifest(world / "data").fingerprint
        assert made.template == Template(kind="text").model_dump(mode="json")
        assert not list((tmp_path / "work").iterdir())

    def test_first_rows_and_the_test_split(self, world, scorer, tmp_path):
        train, test = (plain_states(scorer, world / "data", split=s) for s in ("train", "test"))
        goal = make(scorer, world / "data", tmp_path / "a", rows=7)["preferred"]
        assert goal.provenance.count == 7
        close(goal.vectors[0], train[:7].mean(0))
        goal = make(scorer, world / "data", tmp_path / "b", split="test")["preferred"]
        close(goal.vectors[0], test.mean(0))
        assert (train[:7].mean(0) - test.mean(0)).abs().max() > 1e-2

    @pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
    def test_batches_and_row_order_do_not_matter(self, world, scorer, tmp_path, batch_tokens):
        expected = plain_states(scorer, world / "data").mean(0)
        shutil.copytree(world / "data", tmp_path / "shuffled")
        path = tmp_path / "shuffled" / "train" / "full.parquet"
        rows = load_set(world / "data", "train", "full").shuffle(seed=1)
        path.unlink()
        rows.to_parquet(str(path))
        for data in (world / "data", tmp_path / "shuffled"):
            goal = make(scorer, data, tmp_path / "work", batch_tokens=batch_tokens)["preferred"]
            close(goal.vectors[0], expected)

    def test_contrast(self, world, scorer, tmp_path):
        goal = make(scorer, world / "data", tmp_path / "w", kind="contrast", name="better")
        chosen, rejected = (
            plain_states(scorer, world / "data", side).mean(0) for side in ("chosen", "rejected")
        )
        close(goal["better"].vectors[0], chosen - rejected)
        assert goal["better"].provenance.count == len(load_set(world / "data", "train", "full"))

    @pytest.mark.parametrize("kind", ["mean", "contrast", "nearest", "clusters"])
    def test_by_subset(self, world, scorer, tmp_path, kind):
        goals = make(
            scorer, world / "subsets", tmp_path / "w", by_subset=True, kind=kind, clusters=1
        )
        rows = load_set(world / "subsets", "train", "full")
        chosen = plain_states(scorer, world / "subsets")
        rejected = plain_states(scorer, world / "subsets", "rejected")
        # A row without a subset goes to the goal's own name.
        assert set(goals) == {"helpful", "honest", "preferred"}
        for name, goal in goals.items():
            mine = [i for i, subset in enumerate(rows["subset"]) if (subset or "preferred") == name]
            assert goal.provenance.count == len(mine) > 0
            if kind == "nearest":
                assert len(goal.vectors) == len(mine)
            expected = chosen[mine].mean(0)
            if kind == "contrast":
                expected = expected - rejected[mine].mean(0)
            close(goal.vectors.mean(0), expected, 1e-4)

    def test_nearest_keeps_prompt_and_last_state_together(self, world, scorer, tmp_path):
        data = world / "data"
        goal = make(
            scorer, data, tmp_path / "w", kind="nearest", neighbours=3, batch_tokens=50
        )["preferred"]
        assert goal.provenance.neighbours == 3
        rows = load_set(data, "train", "full")
        both = {
            tuple(row["prompt_ids"] + row["chosen_ids"]): torch.cat([
                state_of(scorer, row["prompt_ids"]),
                state_of(scorer, row["prompt_ids"] + row["chosen_ids"]),
            ])
            for row in rows
        }
        found = torch.cat([goal.keys, goal.vectors], dim=1).double()
        assert len(found) == len(rows)
        for expected in both.values():
            assert (found - expected).abs().amax(1).min() < 1e-4

    def test_clusters_are_centres_of_the_states(self, world, scorer, tmp_path):
        goal = make(scorer, world / "data", tmp_path / "w", kind="clusters", clusters=3)
        states = plain_states(scorer, world / "data").numpy()
        centres = goal["preferred"].vectors.double().numpy()
        assert centres.shape == (3, scorer.hidden_size)
        spread = ((states[:, None] - centres) ** 2).sum(-1).min(1).mean()
        assert spread < 0.9 * ((states - states.mean(0)) ** 2).sum(-1).mean()

    def test_refusals(self, world, scorer, tmp_path):
        with pytest.raises(DataError, match=r"99 clusters need at least .*Lower clusters"):
            make(scorer, world / "data", tmp_path / "a", kind="clusters", clusters=99)
        other = Scorer(
            scorer.reward_model, scorer.tokenizer, Template(prompt="Q: {prompt}"), name="mine"
        )
        with pytest.raises(MismatchError, match=r"another response template .* mine"):
            make(other, world / "data", tmp_path / "b")
        with pytest.raises(DataError, match=r"no manifest\.json"):
            make(scorer, tmp_path, tmp_path / "c")


class TestBadStatesAndData:
    @pytest.mark.parametrize("kind", ["mean", "contrast", "clusters", "nearest"])
    def test_states_that_are_nan(self, world, tmp_path, kind):
        scorer = load_scorer(world / "reward")
        with torch.no_grad():
            scorer.reward_model.carrier.get_input_embeddings().weight[5:] = float("nan")
        with pytest.raises(RewardsteerError, match=r"(?i)nan"):
            make(scorer, world / "data", tmp_path, kind=kind, clusters=2)

    def test_a_row_too_long_is_named_by_its_place_in_the_data(
        self, scorer, world, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(build_module, "_CHUNK", 4)
        shutil.copytree(world / "data", tmp_path / "data")
        path = tmp_path / "data" / "train" / "full.parquet"
        rows = load_set(world / "data", "train", "full").to_list()
        rows[6]["chosen_ids"] = [5] * 600
        path.unlink()
        Dataset.from_list(rows).to_parquet(str(path))
        with pytest.raises(DataError, match=r"Row 7 has 6\d\d tokens"):
            make(scorer, tmp_path / "data", tmp_path / "work")

    def test_data_of_another_tokenizer(self, scorer, tmp_path):
        source = {"name": "arithmetic", "options": {"rows": 20}}
        config = DataConfig(source=source, drop_overlap=False)
        prepare(config, character_tokenizer(), tmp_path / "data")
        with pytest.raises(RewardsteerError, match="tokenizer"):
            make(scorer, tmp_path / "data", tmp_path / "work")


class TestInterrupted:
    KINDS = ("mean", "contrast", "clusters", "nearest")

    def cut(self, monkeypatch, after, run):
        """Run until so many batches were read, then fail as a kill would."""
        real, read = build_module._states, []

        def failing(*arguments):
            for item in real(*arguments):
                read.append(1)
                if len(read) > after:
                    raise KeyboardInterrupt
                yield item

        monkeypatch.setattr(build_module, "_states", failing)
        with pytest.raises(KeyboardInterrupt):
            run()
        monkeypatch.setattr(build_module, "_states", real)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("after", [0, 2, 9])
    def test_resumed_equals_uninterrupted(
        self, world, scorer, tmp_path, monkeypatch, kind, after
    ):
        monkeypatch.setattr(build_module, "_CHUNK", 5)
        options = {"kind": kind, "clusters": 3, "batch_tokens": 60}

        def run(work, resume=False):
            return make(scorer, world / "data", tmp_path / work, resume, **options)["preferred"]

        whole = run("whole")
        self.cut(monkeypatch, after, lambda: run("cut"))
        resumed = run("cut", resume=True)
        assert torch.equal(whole.vectors, resumed.vectors)
        assert whole.provenance == resumed.provenance
        if kind == "nearest":
            assert torch.equal(whole.keys, resumed.keys)
        assert not list((tmp_path / "cut").iterdir())

    def test_resume_reads_only_what_is_missing(self, world, scorer, tmp_path, monkeypatch):
        monkeypatch.setattr(build_module, "_CHUNK", 5)
        seen = []

        def announce(done, total):
            seen.append((done, total))
            if done == 10 and len(seen) == 3:
                raise KeyboardInterrupt

        total = len(load_set(world / "data", "train", "full"))
        with pytest.raises(KeyboardInterrupt):
            build_goals(scorer, world / "data", GoalConfig(), tmp_path, announce=announce)
        build_goals(
            scorer, world / "data", GoalConfig(), tmp_path, announce=announce, resume=True
        )
        steps = [*range(10, total, 5), total]
        assert seen == [(n, total) for n in (0, 5, 10)] + [(n, total) for n in steps]

    def test_states_lost_since_the_record_are_not_made_up(
        self, world, scorer, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(build_module, "_CHUNK", 5)
        options = {"kind": "clusters", "clusters": 2, "batch_tokens": 60}
        whole = make(scorer, world / "data", tmp_path / "whole", **options)["preferred"]
        self.cut(monkeypatch, 9, lambda: make(scorer, world / "data", tmp_path / "w", **options))
        (tmp_path / "w" / "states" / "last").write_bytes(b"")
        try:
            resumed = make(scorer, world / "data", tmp_path / "w", True, **options)["preferred"]
        except DataError:
            return
        assert torch.equal(resumed.vectors, whole.vectors)

    @pytest.mark.parametrize("change", [
        {"kind": "contrast"}, {"rows": 3}, {"batch_tokens": 61}, {"seed": 1}, {"data": "subsets"},
    ])
    def test_resume_with_other_settings_is_refused(
        self, world, scorer, tmp_path, monkeypatch, change
    ):
        monkeypatch.setattr(build_module, "_CHUNK", 2)
        self.cut(monkeypatch, 6, lambda: make(
            scorer, world / "data", tmp_path, batch_tokens=60
        ))
        with pytest.raises(OutputError, match=r"interrupted run; pass resume=True \(--resume\)"):
            make(scorer, world / "data", tmp_path, batch_tokens=60)
        change = dict(change)
        data = world / change.pop("data", "data")
        with pytest.raises(DataError, match=r"other settings, data or weights"):
            make(scorer, data, tmp_path, True, **({"batch_tokens": 60} | change))
        make(scorer, world / "data", tmp_path, True, batch_tokens=60)


def provenance(kind="mean", print_of="", **options):
    return Provenance(kind=kind, model_fingerprint=print_of, **options)


def goal_of(vectors, name="g", keys=None, **options):
    return GoalState(
        name, torch.tensor(vectors, dtype=torch.float32), provenance(**options),
        None if keys is None else torch.tensor(keys, dtype=torch.float32),
    )


class TestSimilarity:
    def test_one_vector(self):
        hidden = torch.tensor([[[2.0, 0.0], [0.0, -3.0], [3.0, 4.0]]])
        found = goal_of([[5.0, 0.0]]).similarity(hidden, torch.zeros(1, 2))
        torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, 0.6]]))

    def test_the_nearest_of_several(self):
        hidden = torch.tensor([[[1.0, 0.0]], [[-3.0, 4.0]]])
        goal = goal_of([[1.0, 1.0], [0.0, 2.0], [-1.0, 0.0]], kind="clusters")
        found = goal.similarity(hidden, torch.zeros(2, 2))
        torch.testing.assert_close(found, torch.tensor([[0.5**0.5], [0.8]]))

    @pytest.mark.parametrize("neighbours", [1, 3, 50])
    def test_nearest_equals_a_plain_computation(self, neighbours):
        generator = torch.Generator().manual_seed(neighbours)

        def random(*shape):
            return torch.randn(*shape, generator=generator)

        vectors, keys = random(12, 6), 5 * random(12, 6)
        goal = GoalState("g", vectors, provenance("nearest", neighbours=neighbours), keys)
        hidden, prompts = random(3, 4, 6), random(3, 6)
        found = goal.similarity(hidden, prompts)
        assert found.shape == (3, 4)
        for i in range(3):
            ranked = sorted(
                range(12),
                key=lambda k: -float(prompts[i] @ keys[k] / prompts[i].norm() / keys[k].norm()),
            )
            target = sum(vectors[k] for k in ranked[:neighbours]) / min(neighbours, 12)
            for t in range(4):
                expected = hidden[i, t] @ target / hidden[i, t].norm() / target.norm()
                assert found[i, t].item() == pytest.approx(expected.item(), abs=1e-5)

    def test_low_precision_states_are_widened(self):
        hidden = torch.randn(2, 3, 2).to(torch.bfloat16)
        goal = goal_of([[1.0, 2.0]])
        found = goal.similarity(hidden, hidden[:, 0])
        assert found.dtype == torch.float32
        exact = goal.similarity(hidden.double(), hidden[:, 0])
        assert exact.dtype == torch.float64
        torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)

    def test_through_the_scorer(self, world, scorer, tmp_path):
        goal = make(scorer, world / "data", tmp_path, kind="nearest", neighbours=2)["preferred"]
        prompts, responses = [[3, 4, 5], [6, 7]], [[8, 9], [3, 4, 5, 6]]
        scores = scorer.token_scores_ids(prompts, responses, goal=goal)
        for prompt, response, score in zip(prompts, responses, scores, strict=True):
            asked = state_of(scorer, prompt)
            ranked = sorted(
                range(len(goal.keys)),
                key=lambda k: -float(asked @ goal.keys[k].double() / goal.keys[k].norm()),
            )
            target = goal.vectors[ranked[:2]].double().mean(0)
            for place in range(len(response)):
                state = state_of(scorer, prompt + response[: place + 1])
                expected = state @ target / state.norm() / target.norm()
                assert score.similarities[place] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("rows", [40, 4100, 9000])
def test_clusters_find_separable_groups(rows):
    rng = np.random.default_rng(0)
    corners = 10 * np.eye(6, dtype=np.float32)[:4]
    group = np.arange(rows) % 4
    states = corners[group] + 0.1 * rng.standard_normal((rows, 6)).astype(np.float32)
    centres = cluster(states, 4, seed=0)
    assert centres.dtype == np.float32
    nearest = ((states[:, None] - centres) ** 2).sum(-1).argmin(1)
    owners = {(int(g), int(n)) for g, n in zip(group, nearest, strict=True)}
    assert len(owners) == 4  # each group has one centre, each centre one group
    for g, n in owners:
        np.testing.assert_allclose(centres[n], corners[g], atol=0.2)
    np.testing.assert_array_equal(cluster(states, 4, seed=0), centres)


KNOWN = {
    "a": goal_of([[3.0, 4.0]], "a", print_of="m", count=5),
    "b": goal_of([[0.0, 2.0]], "b", print_of="m", count=2),
    "other": goal_of([[1.0, 0.0]], "other", print_of="n"),
    "many": goal_of([[1.0, 0.0], [0.0, 1.0]], "many", kind="clusters", print_of="m"),
}


class TestWeightedSum:
    def test_by_hand(self):
        goal = weighted_sum("mix", KNOWN, {"a": 1.0, "b": -0.5})
        torch.testing.assert_close(goal.vectors, torch.tensor([[0.6, 0.3]]))
        assert goal.name == "mix"
        assert goal.provenance == provenance(
            "sum", "m", count=7, weights={"a": 1.0, "b": -0.5}
        )
        torch.testing.assert_close(
            weighted_sum("mix", KNOWN, {"b": 3.0}).vectors, torch.tensor([[0.0, 3.0]])
        )

    @pytest.mark.parametrize(("weights", "kind", "message"), [
        ({"a": 1.0, "c": 1.0}, ConfigError, r"Unknown goal\(s\) c; known: a, b, many, other"),
        ({}, ConfigError, "needs at least one"),
        ({"a": 1.0, "many": 1.0}, ConfigError, "several vectors cannot be added: many"),
        ({"a": 1.0, "other": 1.0}, DataError, "a, other belong to different reward models"),
        ({"a": 0.0}, DataError, "'mix' has length zero"),
        ({"a": float("nan")}, DataError, "'mix' holds NaN"),
    ])
    def test_refusals(self, weights, kind, message):
        with pytest.raises(kind, match=message):
            weighted_sum("mix", KNOWN, weights)


GOALS = {
    "a.b": goal_of([[1.0, 2.0]], "a.b", print_of="m", data_fingerprint="d", count=3),
    "many": goal_of(
        [[1.0, 0.5], [0.0, 1.0]], "many", keys=[[1.0, 2.0], [3.0, 4.0]], kind="nearest",
        neighbours=2, template=Template().model_dump(mode="json"),
    ),
    "sum": goal_of([[0.5, 2.0]], "sum", kind="sum", weights={"a.b": 0.5}),
}


class TestFiles:
    def test_round_trip(self, tmp_path):
        place = save_goals(tmp_path, GOALS)
        assert place == tmp_path / "goal_states.safetensors"
        for source in (tmp_path, place):
            loaded = load_goals(source)
            assert loaded.keys() == GOALS.keys()
            for name, goal in GOALS.items():
                assert loaded[name].name == name
                assert loaded[name].provenance == goal.provenance
                assert torch.equal(loaded[name].vectors, goal.vectors)
                assert (loaded[name].keys is None) == (goal.keys is None)
        assert torch.equal(loaded["many"].keys, GOALS["many"].keys)
        readable = json.loads((tmp_path / "goal_states.json").read_text())
        assert readable["a.b"]["model_fingerprint"] == "m"
        assert readable["sum"]["weights"] == {"a.b": 0.5}
        save_goals(tmp_path, {"sum": GOALS["sum"]})
        assert list(load_goals(tmp_path)) == ["sum"]

    def test_choosing_one(self, tmp_path):
        save_goals(tmp_path, GOALS)
        assert load_goal(tmp_path, "sum").provenance.kind == "sum"
        with pytest.raises(DataError, match=r"a\.b, many, sum: a name is needed"):
            load_goal(tmp_path)
        with pytest.raises(DataError, match=r"a\.b, many, sum: not 'c'"):
            load_goal(tmp_path, "c")
        save_goals(tmp_path, {"sum": GOALS["sum"]})
        assert load_goal(tmp_path).name == "sum"

    def test_missing_and_damaged(self, tmp_path):
        with pytest.raises(DataError, match=r"there are none; make them with"):
            load_goals(tmp_path)
        place = save_goals(tmp_path, GOALS)
        whole = place.read_bytes()
        for damaged in (b"", b"not tensors", whole[:-5], whole.replace(b'"mean', b'"meen')):
            assert damaged != whole
            place.write_bytes(damaged)
            with pytest.raises(DataError, match="damaged"):
                load_goals(tmp_path)

    @pytest.mark.parametrize("header", ["[]", '{"a": 1}', '{"b": {}}'])
    def test_damaged_header(self, tmp_path, header):
        content = save({"a.vectors": torch.ones(1, 2)}, {"goals": header})
        (tmp_path / "g.safetensors").write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            load_goals(tmp_path / "g.safetensors")

    def test_card_lists_the_file_and_the_fingerprint_stays(self, world, tmp_path):
        folder = tmp_path / "reward"
        shutil.copytree(world / "reward", folder)
        before, card = fingerprint(folder), read_card(folder)
        assert card.goal_states == []
        for _ in range(2):
            save_goals(folder, GOALS)
            assert read_card(folder).goal_states == ["goal_states.safetensors"]
            assert fingerprint(folder) == before
        changed = read_card(folder).model_copy(update={"goal_states": []})
        assert changed == card
        loaded = load_scorer(folder)
        np.testing.assert_array_equal(
            loaded.score(["1+2="], ["3"]), load_scorer(world / "reward").score(["1+2="], ["3"])
        )

    def test_npy_round_trip(self, tmp_path):
        path = tmp_path / "g.npy"
        write_npy(path, GOALS["a.b"])
        assert np.load(path).shape == (1, 2)
        assert np.load(path).dtype == np.float32
        for array in (np.load(path), np.array([1.0, 2.0]), np.array([[1.0, 2.0]])):
            np.save(path, array)
            goal = read_npy(path, "mine", provenance("imported", "m"))
            assert torch.equal(goal.vectors, torch.tensor([[1.0, 2.0]]))
            assert (goal.name, goal.provenance.kind) == ("mine", "imported")
        with pytest.raises(DataError, match=r"'many' has 2 vectors; the \.npy form holds one"):
            write_npy(tmp_path / "no.npy", GOALS["many"])
        assert not (tmp_path / "no.npy").exists()

    @pytest.mark.parametrize(("array", "message"), [
        (np.array([{"a": 1}], dtype=object), r"cannot be read.*allow_pickle"),
        (np.ones((2, 4)), r"shape \(2, 4\)"),
        (np.ones((1, 2, 2)), r"shape \(1, 2, 2\)"),
        (np.array(["a", "b"]), "holds <U1 numbers"),
        (np.array([1.0, np.nan]), "'g' holds NaN or infinite"),
        (np.array([[1.0, np.inf]]), "'g' holds NaN or infinite"),
        (np.zeros((1, 4)), "'g' has length zero"),
        (np.zeros((0,)), "'g' has the shape"),
    ])
    def test_npy_refusals(self, tmp_path, array, message):
        np.save(tmp_path / "g.npy", array, allow_pickle=True)
        with pytest.raises(DataError, match=message):
            read_npy(tmp_path / "g.npy", "g", provenance())

    def test_npy_that_is_no_npy(self, tmp_path):
        path = tmp_path / "g.npy"
        with pytest.raises(DataError, match="cannot be read"):
            read_npy(path, "g", provenance())
        np.save(path, np.ones((1, 9)))
        for content in (b"", b"text", path.read_bytes()[:-3]):
            path.write_bytes(content)
            with pytest.raises(DataError, match="cannot be read"):
                read_npy(path, "g", provenance())

    def test_npz_under_the_name_of_an_npy(self, tmp_path):
        np.savez(tmp_path / "g.npz", a=np.ones((1, 4)))
        with pytest.raises(DataError):
            read_npy(tmp_path / "g.npz", "g", provenance())

    def test_broken_archive_under_the_name_of_an_npy(self, tmp_path):
        (tmp_path / "g.npy").write_bytes(b"PK\x03\x04junk")
        with pytest.raises(DataError):
            read_npy(tmp_path / "g.npy", "g", provenance())


class TestGoalAndModel:
    def test_bad_vectors(self):
        with pytest.raises(DataError, match="goal state 'g' holds NaN"):
            goal_of([[1.0, float("nan")]])
        with pytest.raises(DataError, match="keys of the goal state 'g' holds NaN"):
            goal_of([[1.0, 1.0]], keys=[[1.0, float("inf")]])
        with pytest.raises(DataError, match="'g' has length zero"):
            goal_of([[1.0, 0.0], [0.0, 0.0]])
        with pytest.raises(DataError, match=r"'g' has the shape \(2,\)"):
            goal_of([1.0, 2.0])
        with pytest.raises(DataError, match=r"'g' has the shape \(0, 2\)"):
            GoalState("g", torch.zeros(0, 2), provenance())

    def test_goal_of_another_model(self, scorer):
        width, template = scorer.hidden_size, scorer.template.model_dump(mode="json")

        def goal(width=width, print_of=scorer.fingerprint, template=template):
            return goal_of([[1.0] * width], print_of=print_of, template=template)

        check_goal(goal(), scorer)
        check_goal(goal(template={}), scorer)
        with pytest.raises(MismatchError, match=rf"'g' has {width + 1} numbers, .* have {width};"):
            check_goal(goal(width=width + 1), scorer)
        with pytest.raises(MismatchError, match=rf"fingerprint abc\) .*{scorer.fingerprint}"):
            check_goal(goal(print_of="abc"), scorer)
        with pytest.raises(MismatchError, match=r"fingerprint unknown"):
            check_goal(goal(print_of=""), scorer)
        other = Template(prompt="Q {prompt}").model_dump(mode="json")
        with pytest.raises(MismatchError, match="another response template"):
            check_goal(goal(template=other), scorer)


class TestCommand:
    @pytest.fixture
    def reward(self, world, tmp_path):
        shutil.copytree(world / "reward", tmp_path / "reward")
        return tmp_path / "reward"

    def run(self, reward, *arguments):
        command = ["goal-state", "--reward-model", reward, *arguments]
        return CliRunner().invoke(app, [str(argument) for argument in command])

    def made(self, reward, *arguments):
        result = self.run(reward, *arguments)
        assert result.exit_code == 0, result.output
        return result

    def refused(self, reward, arguments, *words):
        result = self.run(reward, *arguments)
        assert result.exit_code == 2, result.output
        message = " ".join(result.stderr.split())
        assert "error: " in message
        for word in words:
            assert word in message
        assert "Traceback" not in message

    def test_makes_a_goal_and_does_not_replace_it_unasked(self, world, scorer, reward):
        made = self.made(reward, "--data", world / "data")
        total = len(load_set(world / "data", "train", "full"))
        assert f"preferred: mean of {total} responses" in made.stderr
        first = load_goal(reward)
        close(first.vectors[0], plain_states(scorer, world / "data").mean(0))
        assert read_card(reward).goal_states == ["goal_states.safetensors"]
        assert not (reward / ".goal-state").exists()
        check_goal(first, load_scorer(reward))

        again = ("rows=3", "--data", world / "data")
        self.refused(reward, again, "'preferred' already", "--overwrite")
        assert torch.equal(load_goal(reward).vectors, first.vectors)
        self.made(reward, *again, "--overwrite")
        assert load_goal(reward).provenance.count == 3
        self.made(reward, "name=second", "rows=4", "--data", world / "data")
        assert {n: g.provenance.count for n, g in load_goals(reward).items()} == {
            "preferred": 3, "second": 4,
        }

    def test_adds_goals_up(self, world, reward):
        self.made(reward, "by_subset=true", "--data", world / "subsets")
        self.refused(
            reward, ("by_subset=true", "--data", world / "subsets"), "goals named",
            "'helpful', 'honest', 'preferred'",
        )
        self.made(reward, "name=mix", "--add", "helpful=1,honest=-0.5")
        goals = load_goals(reward)
        unit = {name: goal.vectors / goal.vectors.norm() for name, goal in goals.items()}
        close(goals["mix"].vectors, unit["helpful"] - 0.5 * unit["honest"])
        assert goals["mix"].provenance.weights == {"helpful": 1.0, "honest": -0.5}
        self.refused(reward, ("name=x", "--add", "helpfull=1"), "Unknown goal(s) helpfull")
        self.refused(reward, ("name=x", "--add", "helpful=much"), "name=number", "'helpful=much'")
        self.refused(reward, ("name=mix", "--add", "helpful=1"), "'mix' already")
        assert load_goals(reward).keys() == goals.keys()

    def test_imports_and_exports(self, world, reward, tmp_path):
        path = tmp_path / "out.npy"
        self.made(reward, "--data", world / "data", "--export-npy", path)
        goal = load_goal(reward)
        np.testing.assert_array_equal(np.load(path), goal.vectors.numpy())
        self.made(reward, "name=back", "--import-npy", path)
        back = load_goal(reward, "back")
        assert torch.equal(back.vectors, goal.vectors)
        assert back.provenance.kind == "imported"
        assert back.provenance.model_fingerprint == fingerprint(reward)
        np.save(path, np.ones((1, 5)))
        self.refused(reward, ("name=bad", "--import-npy", path), "has 5 numbers", "have 32")
        self.refused(
            reward, ("name=bad", "--import-npy", tmp_path / "none.npy"), "none.npy cannot be read"
        )
        assert load_goals(reward).keys() == {"preferred", "back"}

    def test_out_is_another_folder(self, world, reward, tmp_path):
        self.made(reward, "--data", world / "data", "--out", tmp_path / "goals")
        assert list(load_goals(tmp_path / "goals")) == ["preferred"]
        assert not (reward / "goal_states.safetensors").exists()
        assert read_card(reward).goal_states == []

    def test_refusals(self, world, reward, tmp_path):
        data = ("--data", world / "data")
        self.refused(reward, (), "Give one of --data, --add and --import-npy")
        self.refused(reward, (*data, "--add", "a=1"), "Give one of")
        self.refused(reward, ("kid=mean", *data), "Did you mean 'kind'?")
        self.refused(reward, ("kind=median", *data), "'kind' is wrong", "'median'")
        self.refused(reward, ("--data", tmp_path), "manifest.json")
        self.refused(reward, ("--add", "a=1"), "Unknown goal(s) a; known: none")
        assert not (reward / "goal_states.safetensors").exists()

    def test_goals_of_other_weights_are_not_added(self, world, reward, tmp_path):
        self.made(reward, "name=a", "--data", world / "data")
        other = make_reward_model(tmp_path / "other", seed=7)
        self.refused(other, ("--add", "a=1", "--out", reward), "'a' was made with other weights")
        self.refused(
            make_reward_model(tmp_path / "third", template=Template(response=" {response}")),
            ("--data", world / "data"), "another response template",
        )

    def test_interrupted_and_resumed(self, world, reward, monkeypatch):
        monkeypatch.setattr(build_module, "_CHUNK", 5)
        real = build_module._states
        calls = []

        def failing(*arguments):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real(*arguments)

        arguments = ("kind=clusters", "clusters=2", "--data", world / "data")
        monkeypatch.setattr(build_module, "_states", failing)
        assert self.run(reward, *arguments).exit_code == 130
        monkeypatch.setattr(build_module, "_states", real)
        assert not (reward / "goal_states.safetensors").exists()
        self.refused(reward, arguments, "--resume", "--overwrite")
        self.refused(
            reward, ("kind=clusters", "clusters=3", *arguments[2:], "--resume"), "other settings"
        )
        self.made(reward, *arguments, "--resume")
        resumed = load_goal(reward)
        self.made(reward, *arguments, "--overwrite")
        assert torch.equal(load_goal(reward).vectors, resumed.vectors)

    def test_several_goals_are_not_exported_over_each_other(self, world, reward, tmp_path):
        path = tmp_path / "out.npy"
        result = self.run(
            reward, "by_subset=true", "--data", world / "subsets", "--export-npy", path
        )
        assert result.exit_code == 2  # one file cannot hold three goals

    def test_a_goal_that_cannot_be_exported_is_refused_before_anything_is_written(
        self, world, reward, tmp_path
    ):
        arguments = ("kind=clusters", "clusters=2", "--data", world / "data")
        result = self.run(reward, *arguments, "--export-npy", tmp_path / "out.npy")
        assert result.exit_code == 2
        assert not (reward / "goal_states.safetensors").exists()
