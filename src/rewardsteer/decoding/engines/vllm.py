"""Reward-guided decoding inside stock vLLM, as a logits processor; nothing is patched.

    os.environ["REWARDSTEER_REWARD_MODEL"] = "runs/reward"
    llm = LLM("policy", logits_processors=["rewardsteer.decoding.engines.vllm:RewardProcessor"])
    llm.generate(prompts, SamplingParams(extra_args={"reward_weight": 1.0}))

The reward model's head and training decide the rule: ``genarm`` or ``farma`` for a vocabulary head,
``args`` (which is ``pargs`` for a model of partial responses) for a scalar one. Whatever vLLM does
with a request (chunked prefill, cached prefixes, preemption and recomputation), the processor reads
its prompt and the tokens generated so far, so nothing else need be right.

Give the class by its name, not as an entry point: both of vLLM's runners load entry points, and
each wants its own interface.
"""

import os
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version
from torch import Tensor
from vllm.v1.sample.logits_processor import (
    BatchUpdate,
    LogitsProcessor,
    process_dict_updates,
)
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2

import vllm
from rewardsteer.decoding.engines.vllm_memory import check_memory
from rewardsteer.decoding.engines.vllm_requests import (
    DEVICE,
    DTYPE,
    DTYPES,
    NO_DRAFTS,
    read_wish,
    reward_folders,
)
from rewardsteer.decoding.engines.vllm_rows import LOADED, GuidedRows, Seat
from rewardsteer.devices import AUTO, choose_device
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.compatibility import check_vocabularies
from rewardsteer.models.scorer import Scorer

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm import SamplingParams

# The interfaces of logits processors change between minor versions.
_FIRST, _BEFORE = "0.32", "0.33.dev0"

if not Version(_FIRST) <= Version(vllm.__version__) < Version(_BEFORE):
    raise ConfigError(
        f"rewardsteer guides vLLM {_FIRST}.x, found {vllm.__version__}; install 'vllm~={_FIRST}.0'."
    )


class RewardProcessor(LogitsProcessor, LogitsProcessorV2):
    """Adds weighted rewards to the logits of the requests that ask for them.

    A request asks by ``SamplingParams(extra_args=…)``, over HTTP by ``vllm_xargs``; see
    `rewardsteer.decoding.engines.vllm_requests.read_wish`. Requests that do not ask, or ask with
    weight 0, keep their logits bit by bit. Every step asks each reward model once about all rows
    that want it, and not at all when there is none. With tensor parallelism every rank holds the
    reward models and computes the same.

    The V2 runner's part needs a GPU; the tests give it that runner's data structures alone.

    Raises:
        ConfigError: the environment names no reward model, its device or dtype cannot be used, rows
            may become longer than it can read, its share of memory may not do, or drafts of tokens
            are to be guided.
        CheckpointError: a reward model cannot be loaded.
        MismatchError: its tokenizer is not the policy's.
    """

    def __init__(
        self, vllm_config: "VllmConfig", state: Any, is_pin_memory: bool = False
    ) -> None:
        # The V1 runner gives a device, the V2 runner its requests' state, which knows the device.
        self._state = None if isinstance(state, torch.device) else state
        device = state if self._state is None else state.device
        scorers = load_scorers(vllm_config, device)
        self._rows = {name: GuidedRows(scorer) for name, scorer in scorers.items()}
        self._seats: dict[int, Seat] = {}

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Refuse a request whose arguments are wrong; raises `ConfigError`, a ``ValueError``."""
        read_wish(sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        """Rewards change which token is best."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that came, left or moved (V1)."""
        process_dict_updates(self._seats, batch_update, _sit_down)

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Guided logits ``[B, V]``, in place; V2 says with ``ctx`` which rows there are."""
        seats = self._seats if ctx is None else self._seats_now(ctx)
        for name, rows in self._rows.items():
            asking = {row: seat for row, seat in sorted(seats.items()) if seat.wish.model == name}
            if asking:
                places = torch.tensor(list(asking), device=logits.device)
                logits[places] = rows.scores(list(asking.values()), logits[places]).to(logits)
            else:
                rows.forget()
        return logits

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        """A request takes a slot (V2); whether it asks."""
        seat = _sit_down(sampling_params, [], [])
        self._seats.pop(req_idx, None)
        if seat is not None:
            self._seats[req_idx] = seat
        return seat is not None

    def _seats_now(self, ctx: Any) -> dict[int, Seat]:
        """Those of this step by row, with their tokens so far (V2). Rows in the midst of their
        prompt are left out: what is drawn for them is thrown away."""
        state, seats = self._state, {}
        assert state is not None
        lengths = ctx.seq_lens_upper_bound_np.tolist()
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            if slot in self._seats and lengths[row] >= state.prefill_len.np[slot]:
                seat, prompt = self._seats[slot], int(state.prompt_len.np[slot])
                known = len(seat.prompt) + len(seat.output)
                new = state.all_token_ids.gpu[slot, known : lengths[row]].tolist()
                seat.prompt += new[: max(0, prompt - known)]
                seat.output += new[max(0, prompt - known) :]
                seats[row] = seat
        return seats


def _sit_down(params: "SamplingParams", prompt: list[int] | None, output: list[int]) -> Seat | None:
    wish = read_wish(params.extra_args)
    if wish is None:
        return None
    assert prompt is not None, "prompts without tokens are refused when the engine starts"
    return Seat(wish, prompt, output)


def load_scorers(vllm_config: "VllmConfig", device: torch.device) -> dict[str, Scorer]:
    """The reward models that the environment names, checked against what vLLM is to do."""
    model = vllm_config.model_config
    if vllm_config.speculative_config is not None:
        raise ConfigError(NO_DRAFTS)
    if model.enable_prompt_embeds:
        raise ConfigError(
            "A reward model reads token ids, which prompt embeddings do not have; leave out "
            "enable_prompt_embeds."
        )
    dtype = os.environ.get(DTYPE) or None
    if dtype not in (None, *DTYPES):
        raise ConfigError(f"{DTYPE} must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    tokenizer, scorers = load_tokenizer(model.tokenizer), {}
    where = _device(device)
    for name, folder in reward_folders().items():
        scorer = LOADED.get(str(folder)) or Scorer.load(
            folder, device=where, dtype=dtype and getattr(torch, dtype)
        )
        check_vocabularies(tokenizer, scorer)
        limit = scorer.position_limit
        if limit is not None and model.max_model_len > limit:
            raise ConfigError(
                f"vLLM may let rows grow to {model.max_model_len} tokens, but the reward model "
                f"{name!r} reads at most {limit}; start it with max_model_len={limit}."
            )
        scorers[name] = scorer
    shared = where.type == "cuda" and where == device
    check_memory(
        list(scorers.values()), vllm_config.scheduler_config.max_num_seqs, model.max_model_len,
        utilization=vllm_config.cache_config.gpu_memory_utilization if shared else 0.0,
    )
    return scorers


def _device(default: torch.device) -> torch.device:
    named = os.environ.get(DEVICE) or AUTO
    if named == AUTO:
        return default
    try:
        return choose_device(named)
    except ConfigError as error:
        raise ConfigError(f"{DEVICE}: {error}") from error
