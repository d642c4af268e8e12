"""What the processor refuses when it is made, and the V2 runner's interface without that runner."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality  # noqa: E402

from rewardsteer.decoding.engines import vllm as engine  # noqa: E402
from rewardsteer.decoding.engines import vllm_memory  # noqa: E402
from rewardsteer.errors import CheckpointError, ConfigError, MismatchError  # noqa: E402
from rewardsteer.models.scorer import Scorer  # noqa: E402
from tests.cli.test_generate_command import save_reward_model  # noqa: E402
from tests.fakes import CHARACTERS, character_tokenizer  # noqa: E402
from tests.vllm.models import make_requests, save_models  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = save_models(tmp_path_factory.mktemp("models"))
    save_reward_model(
        root / "base", root / "other", "scalar", character_tokenizer(CHARACTERS[::-1])
    )
    return root


def make(root, state=None, **changes):
    model = SimpleNamespace(
        tokenizer=str(root / "policy"), max_model_len=256, enable_prompt_embeds=False
    )
    config = SimpleNamespace(
        model_config=model, speculative_config=None,
        scheduler_config=SimpleNamespace(max_num_seqs=64),
        cache_config=SimpleNamespace(gpu_memory_utilization=0.9),
    )
    for name, value in changes.items():
        setattr(model if hasattr(model, name) else config, name, value)
    return engine.RewardProcessor(config, state or torch.device("cpu"), False)


@pytest.mark.parametrize(
    ("environment", "changes", "error", "parts"),
    [
        ({"MODEL": ""}, {}, ConfigError, "names no reward model"),
        ({"MODEL": "{root}/farma:{root}/farma"}, {}, ConfigError, "must differ"),
        ({"MODEL": "{root}/absent"}, {}, CheckpointError, "there is none"),
        ({"MODEL": "{root}/other"}, {}, MismatchError, "every id the same token"),
        ({"DTYPE": "float8"}, {}, ConfigError, "float32, bfloat16, float16, got 'float8'"),
        ({"DEVICE": "cuda:99"}, {}, ConfigError, "cannot be used here"),
        ({"DEVICE": "gpu"}, {}, ConfigError, "cannot be used here"),
        ({"MEMORY": "most"}, {}, ConfigError, "above 0 and up to 1, got 'most'"),
        ({"MEMORY": "1.5"}, {}, ConfigError, "above 0 and up to 1, got '1.5'"),
        ({}, {"max_model_len": 513}, ConfigError, "max_model_len=512"),
        ({}, {"enable_prompt_embeds": True}, ConfigError, "prompt embeddings"),
        ({}, {"speculative_config": object()}, ConfigError, "speculative decoding"),
    ],
)
def test_refused(root, monkeypatch, environment, changes, error, parts):
    for name, value in ({"MODEL": "{root}/farma"} | environment).items():
        monkeypatch.setenv(f"REWARDSTEER_REWARD_{name}", value.format(root=root))
    with pytest.raises(error, match=parts):
        make(root, **changes)


def test_device_and_dtype(root, monkeypatch):
    monkeypatch.setenv("REWARDSTEER_REWARD_MODEL", str(root / "farma"))
    monkeypatch.setenv("REWARDSTEER_REWARD_DTYPE", "bfloat16")
    seen = []
    load = Scorer.load
    monkeypatch.setattr(
        Scorer, "load", lambda *args, **options: seen.append(options) or load(*args, **options)
    )
    make(root)
    assert seen == [{"device": torch.device("cpu"), "dtype": torch.bfloat16}]


def test_share_of_memory(root, monkeypatch):
    """The bound holds for what a full batch of long rows keeps, and names what would fit."""
    scorer, rows, length = Scorer.load(root / "args"), 8, 40
    weights = sum(weight.nbytes for weight in scorer.reward_model.parameters())
    ids = torch.randint(3, 70, (rows, length))
    reader = scorer.open()
    candidates = torch.arange(256).expand(rows, -1) % 70
    scorer.candidates(ids, torch.ones_like(ids), candidates, reader)
    stores = [store for layer in reader._state.cache.layers for store in layer._stores]
    kept = sum(store.nbytes for store in stores)
    monkeypatch.setattr(vllm_memory, "_total", lambda device: 10 * (weights + kept))
    monkeypatch.setenv("REWARDSTEER_REWARD_MEMORY", "0.1")
    vllm_memory.check_memory([scorer], rows, length)
    with pytest.raises(ConfigError, match=rf"max_num_seqs to {rows}, lower max_model_len"):
        vllm_memory.check_memory([scorer], rows + 1, length)
    monkeypatch.setenv("REWARDSTEER_REWARD_MEMORY", "0.001")
    with pytest.raises(ConfigError, match="half precision"):
        vllm_memory.check_memory([scorer], rows, length)
    monkeypatch.setenv("REWARDSTEER_REWARD_MEMORY", "0.3")
    with pytest.raises(ConfigError, match=r"gpu_memory_utilization=0\.70"):
        vllm_memory.check_memory([scorer], rows, length, utilization=0.9)


@pytest.mark.parametrize("name", ["farma", "args"])
def test_every_rank_computes_the_same(root, monkeypatch, name):
    """Two processors that are told the same, as those of two tensor-parallel workers are."""
    monkeypatch.setenv("REWARDSTEER_REWARD_MODEL", str(root / name))
    processors, outputs = [make(root), make(root)], [[], []]
    prompts = [one.prompt_ids for one in make_requests(5, 30)]
    torch.manual_seed(0)
    for step in range(12):
        logits = torch.randn(4, 79)
        both = []
        for processor, rows in zip(processors, outputs, strict=True):
            added, removed, moved = [], [], []
            if step == 0:
                rows.extend([[] for _ in range(4)])
                added = [(n, params(0.5 * n), prompts[n], rows[n]) for n in range(4)]
            elif step == 4:
                removed, rows[1] = [1], []
                added = [(1, params(-1.0), prompts[4], rows[1])]
            elif step == 8:
                moved = [(0, 3, MoveDirectionality.SWAP)]
                rows[0], rows[3] = rows[3], rows[0]
            update = BatchUpdate(4, removed, added, moved) if added or moved else None
            processor.update_state(update)
            both.append(processor.apply(logits.clone()))
            for row, best in zip(rows, both[-1].argmax(dim=1).tolist(), strict=True):
                row.append(best)
        assert torch.equal(*both)
        assert not torch.equal(both[0], logits)


def params(weight):
    return vllm.SamplingParams(extra_args={"reward_weight": weight})


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "0.33.0rc1", "1.0"])
def test_other_versions_are_refused(monkeypatch, version):
    monkeypatch.setattr(vllm, "__version__", version)
    with pytest.raises(ConfigError, match=rf"0\.32\.x, found {version}"):
        importlib.reload(engine)


def test_v2_interface(root, monkeypatch):
    """Slots are not rows, rows change places, a prompt is read in two parts, a slot is reused."""
    monkeypatch.setenv("REWARDSTEER_REWARD_MODEL", str(root / "farma"))
    scorer, tokens = Scorer.load(root / "farma"), torch.zeros(4, 256, dtype=torch.int32)
    lengths = SimpleNamespace(np=np.zeros(4, dtype=np.int32))
    state = SimpleNamespace(
        device=torch.device("cpu"), all_token_ids=SimpleNamespace(gpu=tokens),
        prompt_len=lengths, prefill_len=SimpleNamespace(np=lengths.np.copy()),
    )
    processor = make(root, state)
    assert not processor.is_argmax_invariant()
    texts: dict[int, list[int]] = {}

    def add(slot, ids, weight):
        texts[slot] = list(ids)
        lengths.np[slot] = state.prefill_len.np[slot] = len(ids)
        tokens[slot, : len(ids)] = torch.tensor(ids)
        params = vllm.SamplingParams(extra_args={"reward_weight": weight})
        assert processor.add_request(slot, params) == bool(weight)

    def step(slots, visible=None):
        visible = visible or {}
        counts = [visible.get(slot, len(texts[slot])) for slot in slots]
        context = SimpleNamespace(
            idx_mapping_np=np.array(slots), seq_lens_upper_bound_np=np.array(counts)
        )
        logits = torch.randn(len(slots), 79)
        guided = processor.apply(logits.clone(), context)
        for row, slot in enumerate(slots):
            seat, ids = processor._seats.get(slot), torch.tensor([texts[slot]])
            pull = torch.zeros(79)
            if seat is not None and slot not in visible:
                pull = seat.wish.weight * scorer.next_token(ids, torch.ones_like(ids))[0, :79]
            torch.testing.assert_close(guided[row], logits[row] + pull, atol=1e-5, rtol=1e-4)
            if slot not in visible:
                texts[slot].append(5 + row)
                tokens[slot, len(texts[slot]) - 1] = 5 + row

    prompts = [one.prompt_ids for one in make_requests(6, 30)]
    add(2, prompts[0], 1.5)
    add(0, prompts[1], 0.0)
    add(3, [5, 6, 7, 8], -0.5)
    step([3, 2, 0], {3: 2})
    step([0, 2, 3])
    step([3, 0, 2])
    add(2, prompts[3], 0.7)
    step([2, 3])
    step([2, 3, 0])
    add(2, prompts[4], 0.0)
    step([0, 2, 3])
