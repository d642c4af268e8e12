"""What is refused before models load, the plugin, and the V2 runner's interface without it."""

import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from safetensors.torch import load_file, save_file  # noqa: E402
from vllm.compilation import backends  # noqa: E402
from vllm.config import set_current_vllm_config  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402

from rewardsteer.decoding.engines import vllm_parts, vllm_plugin  # noqa: E402
from rewardsteer.decoding.engines.vllm_guide import RewardProcessor  # noqa: E402
from rewardsteer.decoding.engines.vllm_model import RewardGuidedForCausalLM  # noqa: E402
from rewardsteer.decoding.engines.vllm_settings import ENTRY, guided_by  # noqa: E402
from rewardsteer.decoding.engines.vllm_start import start  # noqa: E402
from rewardsteer.errors import CheckpointError, ConfigError  # noqa: E402
from rewardsteer.models.checkpoint import CheckpointCard  # noqa: E402
from rewardsteer.models.heads.config import HeadConfig  # noqa: E402
from rewardsteer.models.reward_model import RewardModel  # noqa: E402
from tests.fakes import CHARACTERS, character_tokenizer  # noqa: E402
from tests.vllm.models import LENGTH, save_models  # noqa: E402

OPTIONS = {"dtype": "float32", "enforce_eager": True, "distributed_executor_backend": "uni"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = save_models(tmp_path_factory.mktemp("models"))
    card, tokenizer = CheckpointCard(head=HeadConfig(kind="vocabulary")), character_tokenizer()
    model = RewardModel.from_base(root / "base", card.head)
    model.save_pretrained(root / "other", character_tokenizer(CHARACTERS[::-1]), card)
    model.save_pretrained(root / "nan", tokenizer, card)
    weights = load_file(root / "nan" / "model.safetensors")
    weights["model.embed_tokens.weight"][60] = float("nan")
    save_file(weights, root / "nan" / "model.safetensors", {"format": "pt"})
    return root


def begin(root, names, **options):
    overrides = guided_by([root / name for name in names])
    return start(str(root / "policy"), hf_overrides=overrides, **OPTIONS | options)


@pytest.mark.parametrize(
    ("names", "options", "parts"),
    [
        (["farma", "farma"], {}, "must differ"),
        (["absent"], {}, "there is none"),
        (["other"], {}, "every id the same token"),
        (["nan"], {"max_model_len": LENGTH}, "NaN or infinite"),
        (["args"], {}, "vocabulary head for farma or genarm"),
        (["farma"], {"max_model_len": 513}, "512"),
        (["farma"], {"enable_prompt_embeds": True}, "prompt embeddings"),
        (["farma"], {"speculative_config": {
            "method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2,
        }}, "only in vLLM's V2 runner"),
    ],
)
def test_refused(root, names, options, parts):
    with pytest.raises(ConfigError, match=parts):
        begin(root, names, **options)


def test_settings_that_are_missing(root):
    overrides = guided_by([root / "farma"])
    del overrides[ENTRY]
    with pytest.raises(ConfigError, match="needs hf_overrides with 'rewardsteer'"):
        start(str(root / "policy"), hf_overrides=overrides, **OPTIONS)


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "0.33.0rc1", "1.0"])
def test_other_versions_are_refused(monkeypatch, version):
    monkeypatch.setattr(vllm, "__version__", version)
    with pytest.raises(ConfigError, match=rf"0\.32\.x, found {version}"):
        vllm_plugin.check_version()


def test_the_plugin_is_harmless():
    """Every vLLM process loads it: it makes nothing heavy come in, and may come twice."""
    code = (
        "import vllm, sys; from vllm import ModelRegistry; before = set(sys.modules)\n"
        "from rewardsteer.decoding.engines.vllm_plugin import register\n"
        "register(); register(); new = set(sys.modules) - before\n"
        "assert 'RewardGuidedForCausalLM' in ModelRegistry.get_supported_archs()\n"
        "heavy = {'peft', 'trl', 'datasets', 'rewardsteer.models.scorer', 'omegaconf'}\n"
        "assert not heavy & new, heavy & new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def make_processor(size=79, ranks=1):
    """A processor of the V2 runner, and the model that it asks."""
    context = {}
    hf_config = SimpleNamespace(rewardsteer={"models": ["/"], "weight": 0.0})
    config = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=hf_config),
        compilation_config=SimpleNamespace(static_forward_context=context),
        parallel_config=SimpleNamespace(tensor_parallel_size=ranks),
    )
    processor = RewardProcessor(
        config, SimpleNamespace(device=torch.device("cpu"), max_num_reqs=4)
    )
    model = context[ENTRY] = SimpleNamespace(
        parts=[SimpleNamespace(vocabulary=size, normalise=False)], failed={}
    )
    return processor, model


def test_names_of_an_engine_that_has_ended_are_refused(monkeypatch):
    monkeypatch.setattr(RewardProcessor, "_engines", [])
    first, second = Mock(), Mock()
    RewardProcessor.add_engine(first, ["farma"])
    RewardProcessor.add_engine(second, ["genarm"])
    asked = SimpleNamespace(extra_args={"reward_weight": 1.0, "reward_model": "farma"})
    RewardProcessor.validate_params(asked)
    del first
    with pytest.raises(ConfigError, match="must be one of 'genarm', got 'farma'"):
        RewardProcessor.validate_params(asked)


class Late:
    """An event of a GPU that is behind the host."""

    def __init__(self):
        self.waited = False

    def query(self):
        return self.waited

    def synchronize(self):
        self.waited = True


@pytest.mark.parametrize(("ranks", "told"), [(1, False), (2, True)])
def test_ranks_give_a_request_up_at_the_same_step(ranks, told):
    """Heads of tensor-parallel ranks compute together: one that no longer asks would leave the
    others waiting."""
    processor, model = make_processor(ranks=ranks)
    params = vllm.SamplingParams(extra_args={"reward_weight": 1.0, "reward_name": "s"})
    processor.add_request(0, params)
    model.reward_logits = lambda place, rows: torch.full((1, 79), float("nan"))
    here = SimpleNamespace(idx_mapping_np=np.array([0]), expanded_idx_mapping=torch.zeros(1).int())
    processor.apply(torch.zeros(1, 79), here)
    # A GPU tells when it is done; a CPU is done at once, and yet several ranks look a step later.
    assert bool(model.failed) == (ranks == 1)
    model.failed.clear()
    processor.add_request(0, params)
    processor._flags[:] = [
        (Late(), torch.ones(1, dtype=torch.bool), torch.zeros(1).long(), dict(processor._asked),
         model.failed)
    ]
    processor._tell()
    assert bool(model.failed) == told


class Graphed(torch.nn.Module):
    """A model whose pieces run as CUDA graphs: it reads its ids where they were at capture, and
    its states are in the memory of all graphs."""

    def __init__(self, pool, width, factor):
        super().__init__()
        self.pool, self.width, self.factor, self.captured = pool, width, factor, {}

    def forward(self, ids, positions):
        held = self.captured.setdefault(len(ids), ids)
        states = self.pool[: len(ids) * self.width].view(len(ids), self.width)
        return states.copy_(held[:, None] * self.factor + positions[:, None])


def test_models_run_as_graphs_side_by_side():
    """Each reads this step's ids, and none overwrites what another computed."""
    model = RewardGuidedForCausalLM.__new__(RewardGuidedForCausalLM)
    torch.nn.Module.__init__(model)
    pool = torch.zeros(1000)
    model.policy = Graphed(pool, 4, 1.0)
    model.parts = [
        SimpleNamespace(model=Graphed(pool, width, factor), known=SimpleNamespace(
            size=size, stand_in=0
        )) for width, factor, size in ((3, 10.0, 60), (5, 100.0, 50))
    ]
    model._skips, model._widths, model._ids, model._most, model.asked = False, [], None, 32, True
    inputs = torch.zeros(32, dtype=torch.int32)
    for step in range(3):
        for count in (32, 8):
            ids = inputs[:count].copy_(torch.arange(count) + 20 * step)
            where = torch.arange(count).float()
            right = torch.cat([
                (ids.where(ids < size, 0) * factor + where)[:, None].expand(-1, width)
                for width, factor, size in ((4, 1.0, 1000), (3, 10.0, 60), (5, 100.0, 50))
            ], dim=1)
            torch.testing.assert_close(model(ids, where), right)


def test_parts_do_not_share_compiled_code(root, monkeypatch):
    """vLLM's caches of compiled code, which holds the names of a model's layers, are kept apart by
    the configuration and by a tag."""
    seen = []

    def built(config, prefix):
        seen.append((backends.model_tag, config.compute_hash()))
        raise RuntimeError("enough is known")

    monkeypatch.setattr(vllm_parts, "init_vllm_registered_model", built)
    config = EngineArgs(model=str(root / "policy"), dtype="float32").create_engine_config()
    with set_current_vllm_config(config):
        for prefix in ("rewards.a", "rewards.b"):
            with pytest.raises(RuntimeError, match="enough"):
                vllm_parts.build_reward(config, None, root / "farma", prefix)
    assert len({tag for tag, _ in seen} | {backends.model_tag}) == 3
    assert len({known for _, known in seen}) == 2


def test_weights_that_vllm_quantises_while_it_loads_them_are_checked(tmp_path):
    """float8 has no test for numbers, and weights on the meta device no values."""
    taken = []
    model = SimpleNamespace(load_weights=lambda weights: taken.extend(dict(weights)))
    part = vllm_parts.RewardPart(tmp_path, model, None, 1, False, False)
    fine, broken = torch.ones(2), torch.tensor([1.0, float("nan")])
    part.load_weights([("a", fine), ("b", fine.to(torch.float8_e4m3fn)), ("c", fine.int())])
    assert taken == ["a", "b", "c"]
    for kind in (torch.bfloat16, torch.float8_e4m3fn):
        with pytest.raises(CheckpointError, match="NaN or infinite"):
            part.load_weights([("a", fine), ("b", broken.to(kind))])


def test_v2_interface():
    """Slots are not rows, rows change places, a slot is reused, drafts give a request several
    rows, which may be asked about in several parts, and a row whose rewards are no numbers is given
    up."""
    torch.manual_seed(0)
    size = 79
    processor, model = make_processor(size)
    assert not processor.is_argmax_invariant()
    weights: dict[int, float] = {}

    def add(slot, weight):
        weights[slot] = weight
        extra = {"reward_weight": weight, "reward_name": f"s{slot}"}
        params = vllm.SamplingParams(extra_args=extra)
        assert processor.add_request(slot, params) == bool(weight)

    def step(slots, copies=1, broken=None, parts=1):
        rows = [slot for slot in slots for _ in range(copies)]
        rewards, logits = torch.randn(len(rows), size), torch.randn(len(rows), size)
        if broken is not None:
            rewards[rows.index(broken)] = float("nan")
        asked, mapping, each = [], torch.tensor(rows).int(), len(slots) // parts
        model.reward_logits = lambda place, rows: asked.append(rows) or rewards[rows]
        processor.apply_staged_writes()
        guided = torch.cat([
            processor.apply(logits[at * copies : (at + each) * copies].clone(), SimpleNamespace(
                idx_mapping_np=np.array(slots[at : at + each]),
                expanded_idx_mapping=mapping[at * copies : (at + each) * copies],
            )) for at in range(0, len(slots), each)
        ])
        if broken is not None:
            weights[broken] = 0.0
        pull = torch.tensor([weights[slot] for slot in rows])[:, None]
        right = torch.where(pull != 0, logits + pull * rewards, logits)
        assert torch.equal(guided, right)
        return len(asked)

    add(2, 1.5)
    add(0, 0.0)
    add(3, -0.5)
    assert step([3, 2, 0]) == 1
    assert step([0]) == 0
    assert step([0, 2, 3], copies=3) == 1
    assert step([3, 2, 0], copies=3, parts=3) == 2
    add(2, 0.7)
    assert step([2, 3]) == 1
    assert step([3, 2, 0], broken=2) == 1
    assert model.failed.keys() == {"s2"}
    assert step([2, 3]) == 1
    assert step([2, 0]) in (0, 1)
    add(2, 0.3)
    assert step([2]) == 1


def test_seeded_requests_together_longer_than_a_step(root):
    """On CPUs vLLM stops at a seeded prompt that it reads in chunks, so it is not to read in
    chunks there."""
    llm = start(str(root / "policy"), max_model_len=200, max_num_seqs=32, **OPTIONS)
    step = llm.llm_engine.vllm_config.scheduler_config.max_num_batched_tokens
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (step // 180 + 2, 180), generator=generator).tolist()

    def answers(count):
        return [one.outputs[0].token_ids for one in llm.generate(
            [{"prompt_token_ids": row} for row in ids[:count]],
            [vllm.SamplingParams(seed=seed, max_tokens=4, ignore_eos=True)
             for seed in range(count)], use_tqdm=False,
        )]

    assert answers(len(ids))[:3] == answers(3)
