"""The logits processor that adds rewards inside vLLM.

    guided logits = policy's logits + w · rewards of all next tokens

It keeps only the weights of requests: `RewardGuidedForCausalLM` has run on the rows already. It
implements both interfaces of vLLM, for the V1 and the V2 model runner.

An exception in a logits processor ends vLLM's engine and all requests with it, so nothing raises
here once the processor is made.

Shapes: B rows of a step, R of them guided, V the policy's vocabulary, S slots of requests.
"""

import logging
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2

from rewardsteer.decoding.engines.vllm_settings import (
    ENTRY,
    RewardParams,
    parse_reward_params,
    read_settings,
)
from rewardsteer.decoding.guides.weights import floor_unknown

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm import SamplingParams

logger = logging.getLogger(__name__)


class RewardProcessor(LogitsProcessor, LogitsProcessorV2):
    """Adds weighted rewards to the logits of the requests that ask for them.

    A request asks by ``SamplingParams(extra_args=…)``, over HTTP by ``vllm_xargs``; see
    `rewardsteer.decoding.engines.vllm_settings.parse_reward_params`. Requests that do not ask, or
    ask with weight 0, keep their logits bit by bit, and a step without any that asks computes no
    rewards.
    """

    # Configurations of this process's engines, which end with them, and the names of their models.
    _engines: ClassVar[list[tuple["weakref.ref[VllmConfig]", list[str]]]] = []

    @classmethod
    def add_engine(cls, config: "VllmConfig", models: Iterable[str]) -> None:
        """Note the names of an engine's reward models, so that requests are checked before they
        reach it; the plugin calls this."""
        cls._engines.append((weakref.ref(config), list(models)))

    def __init__(
        self, vllm_config: "VllmConfig", state: Any, is_pin_memory: bool = False
    ) -> None:
        # The V1 runner gives a device, the V2 runner its requests' state, which knows the device.
        second = not isinstance(state, torch.device)
        self._device = state.device if second else state
        self._slots = state.max_num_reqs if second else 0
        settings = read_settings(vllm_config.model_config.hf_config)
        self._names, self._weight = list(settings.folders), settings.weight
        self._context = vllm_config.compilation_config.static_forward_context
        self._asked: dict[int, RewardParams] = {}
        self._changed = True
        # By reward model: the guided rows (V1), and the weights of rows (V1) or slots (V2).
        self._due: dict[int, tuple[Tensor | None, Tensor]] = {}
        # Tensor-parallel ranks compute the same and must decide the same at the same step.
        self._ranks = vllm_config.parallel_config.tensor_parallel_size
        # Flags of rows whose rewards are no numbers, on their way to the host.
        self._flags: list[tuple[Any, Tensor, Tensor, dict[int, RewardParams], dict[str, str]]] = []

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Refuse a request whose arguments are wrong; raises `ConfigError`, a ``ValueError``."""
        given = sampling_params.extra_args or {}
        cls._engines[:] = [one for one in cls._engines if one[0]() is not None]
        known = [name for _, models in cls._engines for name in models]
        parse_reward_params(given, known or [given.get("reward_model", "")])

    def is_argmax_invariant(self) -> bool:
        """Rewards change which token is best."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that came, left or moved (V1)."""
        self._changed |= process_dict_updates(
            self._asked, batch_update, lambda params, prompt, output: self._read(params)
        )
        self._context[ENTRY].asked = bool(self._asked)

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        """Give a request a slot (V2); whether it asks for rewards."""
        asked = self._read(sampling_params)
        self._changed = True
        self._asked.pop(req_idx, None)
        if asked is not None:
            self._asked[req_idx] = asked
        return asked is not None

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Guided logits ``[B, V]``, in place; in V2 ``ctx`` lists the rows."""
        try:
            self._tell()
            if self._changed:
                self._plan()
            for place, (rows, weights) in self._due.items():
                if rows is not None:
                    self._guide(logits, place, rows, weights[:, None], rows)
                elif any(slot in self._asked for slot in ctx.idx_mapping_np.tolist()):
                    # Under speculative decoding a request has several rows.
                    slots = ctx.expanded_idx_mapping.long()
                    self._guide(logits, place, None, weights[slots][:, None], slots, _begin(ctx))
        except Exception:
            logger.exception("This step goes on without reward models")
        return logits

    def _guide(
        self, logits: Tensor, place: int, rows: Tensor | None, weights: Tensor, slots: Tensor,
        begin: int = 0,
    ) -> None:
        """Add the rewards of one model to rows (None: all) of the logits, in place. The logits are
        those of the step from row ``begin`` on."""
        model = self._context[ENTRY]
        part = model.parts[place]
        read = slice(begin, begin + len(logits)) if rows is None else rows
        rewards = model.reward_logits(place, read)[:, : part.vocabulary].float()
        if part.normalise:
            rewards = rewards.log_softmax(dim=-1)
        pull = spread_over(weights * rewards, logits.shape[1])
        fine, guided = pull.isfinite().all(dim=-1, keepdim=True), weights != 0
        own = logits if rows is None else logits[rows]
        scores = torch.where(fine & guided, own + pull.to(own.dtype), own)
        if rows is None:
            logits.copy_(scores)
        else:
            logits[rows] = scores
        self._watch((guided & ~fine)[:, 0], slots, model.failed)

    def _plan(self) -> None:
        """Weights on the device, after requests have come or gone."""
        self._changed, self._due = False, {}
        for place, name in enumerate(self._names):
            own = {slot: one.weight for slot, one in sorted(self._asked.items())
                   if one.model == name and not one.lost}
            if not own:
                continue
            if self._slots:
                table = torch.zeros(self._slots)
                table[list(own)] = torch.tensor(list(own.values()))
                self._due[place] = None, table.to(self._device)
            else:
                self._due[place] = (
                    torch.tensor(list(own), device=self._device),
                    torch.tensor(list(own.values()), device=self._device),
                )

    def _watch(self, bad: Tensor, slots: Tensor, failed: dict[str, str]) -> None:
        """Copy flags ``[R]`` of requests in slots ``[R]`` to the host, without waiting for it."""
        flags, places = (one.to("cpu", non_blocking=True) for one in (bad, slots))
        event = None
        if bad.device.type != "cpu":
            event = torch.Event(bad.device)
            event.record()
        self._flags.append((event, flags, places, dict(self._asked), failed))
        if self._ranks == 1:
            self._tell()

    def _arrived(self, event: Any) -> bool:
        """Whether a step's flags are on the host. With several ranks this waits for them, which
        arrive at each at its own time, with the end of an earlier step."""
        if event is not None and self._ranks > 1:
            event.synchronize()
        return event is None or bool(event.query())

    def _tell(self) -> None:
        """Stop guiding the requests whose flags have arrived, with a line in the log for each."""
        while self._flags and self._arrived(self._flags[0][0]):
            _, flags, places, asked, failed = self._flags.pop(0)
            for slot in places[flags].unique().tolist() if bool(flags.any()) else ():
                one = asked.get(slot)
                if one is None or one.lost:
                    continue
                one.lost = self._changed = True
                reason = f"the reward model {one.model!r} gives rewards that are NaN or infinite"
                if one.name:
                    failed[one.name] = reason
                logger.warning(
                    "The request %s goes on without its reward model: %s",
                    one.name or "without a name", reason,
                )

    def _read(self, params: "SamplingParams") -> RewardParams | None:
        """The guidance that a request asks for. It was checked on arrival, so an error now is not
        its fault, and it continues unguided."""
        try:
            return parse_reward_params(params.extra_args, self._names, self._weight)
        except Exception as error:
            logger.warning("A request goes on without its reward model: %s", error)
            return None


def _begin(ctx: Any) -> int:
    """First row, among all of the step, of those that V2 asks about: it verifies many drafts in
    several parts, each with a slice of the step's tensors."""
    return int(ctx.expanded_idx_mapping.storage_offset())


def spread_over(pull: Tensor, size: int) -> Tensor:
    """Weighted rewards ``[R, U]`` over the policy's vocabulary ``[R, V]``; tokens that the reward
    model does not know get the minimum of their row."""
    missing = size - pull.shape[1]
    if missing <= 0:
        return pull[:, :size]
    known = torch.arange(size, device=pull.device) < pull.shape[1]
    return floor_unknown(pad(pull, (0, missing)), known.expand(len(pull), size))
