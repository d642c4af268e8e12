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

import logging
import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
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
from rewardsteer.decoding.engines.vllm_held import Held, find
from rewardsteer.decoding.engines.vllm_memory import check_memory
from rewardsteer.decoding.engines.vllm_requests import (
    DEVICE,
    DTYPE,
    DTYPES,
    NO_DRAFTS,
    default_top_k,
    default_weight,
    read_wish,
    reward_folders,
)
from rewardsteer.decoding.engines.vllm_rows import GuidedRows, Seat
from rewardsteer.devices import choose_device
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.compatibility import check_vocabularies
from rewardsteer.models.scorer import Scorer

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm import SamplingParams

logger = logging.getLogger(__name__)

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

    An exception in a logits processor ends vLLM's engine, and all requests with it. So nothing
    raises here once the processor is made: a request that cannot be guided goes on with the
    policy's own logits, and a line in the log says so (`rewardsteer.decoding.engines.vllm_rows`).

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
        held = find(getattr(vllm_config, "additional_config", None))
        self._folders = reward_folders()
        scorers = load_scorers(vllm_config, device, self._folders, held)
        self._rows = {name: GuidedRows(scorer, held) for name, scorer in scorers.items()}
        self._seats: dict[int, Seat] = {}
        self._applied = False

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Refuse a request whose arguments are wrong; raises `ConfigError`, a ``ValueError``."""
        read_wish(sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        """Rewards change which token is best."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that came, left or moved (V1)."""
        process_dict_updates(self._seats, batch_update, self._sit_down)

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Guided logits ``[B, V]``, in place; V2 says with ``ctx`` which rows there are."""
        self._applied = True
        try:
            seats = self._seats if ctx is None else self._seats_now(ctx)
            for name, rows in self._rows.items():
                asking = {
                    row: seat for row, seat in sorted(seats.items())
                    if seat.wish.model == name and seat.lost is None
                }
                if asking:
                    places = torch.tensor(list(asking), device=logits.device)
                    logits[places] = rows.guided(list(asking.values()), logits[places])
                else:
                    rows.forget()
        except Exception:
            logger.exception("This step goes on without reward models")
        return logits

    def apply_staged_writes(self) -> None:
        """Called before every step (V2), where `apply` is not when no row of it asks: then what
        was read for rows that are gone is given back."""
        if not self._applied:
            for rows in self._rows.values():
                rows.forget()
        self._applied = False

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        """A request takes a slot (V2); whether it asks."""
        seat = self._sit_down(sampling_params, [], [])
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
        spans: list[tuple[int, int, int]] = []
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            if slot in self._seats and lengths[row] >= state.prefill_len.np[slot]:
                seat = seats[row] = self._seats[slot]
                spans.append((slot, len(seat.prompt) + len(seat.output), lengths[row]))
        new = _tokens(state.all_token_ids.gpu, spans)
        for seat, (slot, known, _), ids in zip(seats.values(), spans, new, strict=True):
            prompt = max(0, int(state.prompt_len.np[slot]) - known)
            seat.prompt += ids[:prompt]
            seat.output += ids[prompt:]
        return seats

    def _sit_down(
        self, params: "SamplingParams", prompt: list[int] | None, output: list[int]
    ) -> Seat | None:
        """The seat of a request that asks. What it asks was checked when it came, so whatever is
        wrong now is not its fault, and it goes on unguided."""
        try:
            wish = read_wish(params.extra_args, self._folders)
            if wish is not None and prompt is None:
                raise ConfigError("The request has no prompt tokens for a reward model to read.")
        except Exception as error:
            logger.warning("A request goes on without its reward model: %s", error)
            return None
        return None if wish is None or prompt is None else Seat(wish, prompt, output)


def _tokens(held: Tensor, spans: list[tuple[int, int, int]]) -> list[list[int]]:
    """Token ids of spans (slot, begin, end), in one read of the device."""
    if not spans:
        return []
    slots = [slot for slot, begin, end in spans for _ in range(begin, end)]
    columns = [column for _, begin, end in spans for column in range(begin, end)]
    where = torch.tensor([slots, columns], dtype=torch.long).to(held.device)
    flat = iter(held[where[0], where[1]].tolist())
    return [list(islice(flat, max(0, end - begin))) for _, begin, end in spans]


def load_scorers(
    vllm_config: "VllmConfig", device: torch.device, folders: Mapping[str, Path],
    held: Held | None = None,
) -> dict[str, Scorer]:
    """The reward models, checked against what vLLM is to do.

    Args:
        vllm_config: vLLM's.
        device: the policy's.
        folders: of the reward models by name.
        held: where whoever runs the engine has loaded the only one.
    """
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
    default_weight()
    default_top_k()
    tokenizer, scorers = load_tokenizer(model.tokenizer), {}
    named = os.environ.get(DEVICE)
    where = choose_device(named) if named else device
    for name, folder in folders.items():
        if held is None:
            scorer = Scorer.load(folder, device=where, dtype=dtype and getattr(torch, dtype))
        else:
            # Moved here and now, so that vLLM counts its weights when it plans its memory.
            scorer = held.scorer
            scorer.reward_model.to(where)
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
