"""A `Steerer` on vLLM: vLLM starts once and answers call after call."""

import pytest

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer import Steerer  # noqa: E402
from rewardsteer.data.template import Template  # noqa: E402
from rewardsteer.decoding.engines import vllm_engine  # noqa: E402
from rewardsteer.errors import ConfigError, DataError  # noqa: E402
from tests.vllm.models import save_models  # noqa: E402

OPTIONS = {"enforce_eager": True, "distributed_executor_backend": "uni",
           "num_gpu_blocks_override": 64}
SETTINGS = {
    "template": Template(kind="text"), "dtype": "float32", "mode": "greedy", "max_new_tokens": 6,
    "top_k": 0, "weight": 1.5, "batch_size": 3,
}
CALLS = [["ab"], ["Sum of 3", "a much longer prompt than the first one"]]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def started(monkeypatch):
    """The policies that vLLM was started with."""
    found, start = [], vllm_engine.start
    monkeypatch.setattr(
        vllm_engine, "start", lambda source, **options: found.append(options) or start(
            source, **options)
    )
    return found


def test_calls_share_one_vllm(root, started):
    policy, reward = root / "policy", root / "farma"
    near = Steerer(policy, reward, **SETTINGS)
    with Steerer(policy, reward, engine="vllm", engine_options=OPTIONS, **SETTINGS) as steerer:
        for prompts in CALLS:
            right = [one.token_ids for one in near.generate(prompts)]
            assert [one.token_ids for one in steerer.generate(prompts)] == right
        assert len(started) == 1

        answers = steerer.iterate(["ab", "Sum of 3"])
        next(answers)
        with pytest.raises(ConfigError, match="still answers an earlier call"):
            steerer.generate(["ab"])
        answers.close()
        assert not steerer.generate(["ab"])[0].error
        assert len(started) == 1

        # Other models run in a vLLM of their own.
        right = [one.token_ids for one in near.generate(CALLS[1], method="none")]
        assert [one.token_ids for one in steerer.generate(CALLS[1], method="none")] == right
        assert [bool(one.get("hf_overrides")) for one in started] == [True, False]
        running = steerer._shared.choice.options["running"]
        assert running.policies
    assert not running.policies


def test_a_given_limit_holds_for_prompts(root, started):
    options = OPTIONS | {"max_model_len": 20}
    steerer = Steerer(root / "policy", engine="vllm", engine_options=options, **SETTINGS)
    with pytest.raises(DataError, match="exceeds the 19 that the policy can read"):
        steerer.generate(["ab", "a b c d e f g h i j k l m n"])
    assert not started
