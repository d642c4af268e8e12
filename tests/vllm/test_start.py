"""What is refused before models load, the plugin, and the V2 runner's interface without it."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from safetensors.torch import load_file, save_file  # noqa: E402

from rewardsteer.decoding.engines import vllm_plugin  # noqa: E402
from rewardsteer.decoding.engines.vllm_guide import RewardProcessor  # noqa: E402
from rewardsteer.decoding.engines.vllm_settings import ENTRY, guided_by  # noqa: E402
from rewardsteer.decoding.engines.vllm_start import start  # noqa: E402
from rewardsteer.errors import ConfigError  # noqa: E402
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


def test_v2_interface():
    """Slots are not rows, rows change places, a slot is reused, drafts give a request several
    rows, and a row whose rewards are no numbers is given up."""
    torch.manual_seed(0)
    size, context = 79, {}
    hf_config = SimpleNamespace(rewardsteer={"models": ["/"], "weight": 0.0})
    config = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=hf_config),
        compilation_config=SimpleNamespace(static_forward_context=context),
    )
    state = SimpleNamespace(device=torch.device("cpu"), max_num_reqs=4)
    processor = RewardProcessor(config, state)
    assert not processor.is_argmax_invariant()
    model = context[ENTRY] = SimpleNamespace(
        parts=[SimpleNamespace(vocabulary=size, normalise=False)], failed={}
    )
    weights: dict[int, float] = {}

    def add(slot, weight):
        weights[slot] = weight
        extra = {"reward_weight": weight, "reward_name": f"s{slot}"}
        params = vllm.SamplingParams(extra_args=extra)
        assert processor.add_request(slot, params) == bool(weight)

    def step(slots, copies=1, broken=None):
        rows = [slot for slot in slots for _ in range(copies)]
        rewards, logits = torch.randn(len(rows), size), torch.randn(len(rows), size)
        if broken is not None:
            rewards[rows.index(broken)] = float("nan")
        asked = []
        model.reward_logits = lambda place, rows: asked.append(rows) or rewards
        processor.apply_staged_writes()
        guided = processor.apply(logits.clone(), SimpleNamespace(
            idx_mapping_np=np.array(slots), expanded_idx_mapping=torch.tensor(rows).int()
        ))
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
