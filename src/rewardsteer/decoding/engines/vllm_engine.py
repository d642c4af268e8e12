"""Answers to prompts by vLLM in this process: the policy alone, guided, or the best of n.

Draws are made by vLLM, from a seed of the row's own; so they do not depend on the batch, and are
other draws than those of the transformers engine. Greedy responses are the same.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding import generate as answers
from rewardsteer.decoding.candidates import CandidateGuide
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import policy_settings, with_defaults
from rewardsteer.decoding.engines.hf import stop_ids
from rewardsteer.decoding.engines.vllm_held import ENTRY, Held, hold
from rewardsteer.decoding.engines.vllm_requests import (
    DEVICE,
    DTYPE,
    MODELS,
    NO_DRAFTS,
    TOP_K,
    WEIGHT,
    check_top_k,
)
from rewardsteer.decoding.guide import Method, Reads, TokenGuide
from rewardsteer.decoding.loop import Row
from rewardsteer.decoding.methods import METHODS
from rewardsteer.decoding.methods.none import Plain
from rewardsteer.decoding.penalties import ending_ids
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.vocabulary import VocabularyGuide
from rewardsteer.devices import AUTO, choose_device
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.compatibility import check_vocabularies, members
from rewardsteer.models.limits import position_limit
from rewardsteer.records import Cost, Generation

# vLLM's top_p is above 0; the likeliest token stays with any.
_LEAST_TOP_P = 1e-6
PROCESSOR = "rewardsteer.decoding.engines.vllm:RewardProcessor"
# The guides whose rules the processor has.
_RULES = (Plain.open, VocabularyGuide.open, CandidateGuide.open)
# Rows handed over at once, as a multiple of those decoded together: at the end of each such part
# the batch runs empty, and only what came before it is written.
_PART = 8


def generate(
    source: str, tokenizer: Any, requests: Sequence[Request], method: Method,
    config: DecodingConfig, *, template: Template, device: str = AUTO,
    reward_device: str | None = None, reward_dtype: str | None = None, **options: Any,
) -> Iterator[Generation]:
    """As `rewardsteer.decoding.generate.generate`, by vLLM. What vLLM computes again after it has
    set a request aside it does not tell, so it is missing in the costs.

    Args:
        source: the policy's folder or hub name.
        tokenizer: the policy's.
        requests: the prompts.
        method: from `build_method`; a reward model that guides came from a folder.
        config: settings; ``batch_size`` is vLLM's ``max_num_seqs``.
        template: how prompts are written.
        device: of the policy; there is one, which vLLM was built for.
        reward_device, reward_dtype: of the reward model; default: vLLM's device, and as saved
            where vLLM runs workers of its own, which load it again.
        options: engine arguments of vLLM.

    Raises:
        ConfigError: vLLM is not installed, cannot do this, or refuses an option.
        MismatchError: the two tokenizers differ.
        DataError: a prompt that is too long or empty.
    """
    settings_of_policy = policy_settings(source)
    config = with_defaults(config, settings_of_policy)
    check_supported(method, config)
    check_device(device)
    guides = method.level == "token" and method.scorer is not None
    if guides and options.get("speculative_config"):
        raise ConfigError(NO_DRAFTS)
    scorer = method.scorer
    if scorer is not None:
        check_vocabularies(tokenizer, scorer)
    template, renderer = writer_of(template, tokenizer, scorer)
    limit, vocabulary = bounds(source)
    limits = {"policy": limit, "reward model": getattr(scorer, "position_limit", None)}
    ready = answers.prepare(
        requests, template, renderer, tokenizer, limits, config, vocabulary=vocabulary
    )
    longest = max(len(one.ids) for one in ready) + config.max_new_tokens
    options = {"max_model_len": longest, "max_num_seqs": config.batch_size} | options
    held, settings = Held(scorer), {}
    if guides:
        settings = {
            MODELS: json.dumps([scorer.name]), DEVICE: reward_device or "",
            DTYPE: reward_dtype or "", WEIGHT: "", TOP_K: "",
        }
        options["logits_processors"] = [PROCESSOR]
        options["additional_config"] = {
            **options.get("additional_config", {}), ENTRY: hold(held)
        }
    with environment(settings):
        llm = start(source, **options)
    if scorer is not None and not guides:
        # After vLLM has taken what it takes of the device.
        scorer.reward_model.to(choose_device(reward_device or built_for()))
    engine = VllmEngine(llm, tokenizer, held, settings, stop_ids(settings_of_policy, tokenizer))
    # Typed for the transformers engine, of which it needs the stream and the tokenizer.
    return answers.stream(engine, ready, method, config, template, method.name)  # type: ignore[arg-type]


class VllmEngine:
    """A running vLLM with the policy's tokenizer; see `rewardsteer.decoding.engines.hf.HfEngine`.

    Args:
        llm: a ``vllm.LLM``, with the reward processor where it is to guide.
        tokenizer: the policy's.
        held: what it shares with the processor.
        settings: environment variables that the processor reads.
        stop_ids: tokens that end a response.
    """

    def __init__(
        self, llm: Any, tokenizer: Any, held: Held, settings: Mapping[str, str],
        stop_ids: frozenset[int],
    ) -> None:
        self.llm, self.tokenizer, self.stop_ids = llm, tokenizer, stop_ids
        self._held, self._settings = held, settings

    def stream(
        self, rows: Iterable[Row], guide: TokenGuide, config: DecodingConfig
    ) -> Iterator[Row]:
        """Generate rows and yield them in the order given."""
        waiting = iter(rows)
        while part := list(islice(waiting, _PART * config.batch_size)):
            yield from self._generate(part, guide, config)

    def _generate(
        self, rows: Sequence[Row], guide: TokenGuide, config: DecodingConfig
    ) -> Sequence[Row]:
        costs = self._held.costs
        costs.update((row.name, Reads()) for row in rows)
        began = time.perf_counter()
        with environment(self._settings):
            outputs = self.llm.generate(
                [{"prompt_token_ids": list(row.prompt_ids)} for row in rows],
                [self._parameters(row, guide, config) for row in rows], use_tqdm=False,
            )
        share = (time.perf_counter() - began) / len(rows)
        for row, output in zip(rows, outputs, strict=True):
            [answer] = output.outputs
            row.token_ids = list(answer.token_ids)
            row.finish_reason = answer.finish_reason
            if row.text is not None and answer.stop_reason in config.stop:
                row.finish_reason = "length"  # No token ended it.
                row.text.add(row.token_ids)
            row.error = self._held.failed.pop(row.name, None)
            reads, new = costs.get(row.name, Reads()), len(row.token_ids)
            read = len(row.prompt_ids) - (output.num_cached_tokens or 0) + new - 1
            row.cost = Cost(
                new_tokens=new, lm_calls=new, lm_forwards=new, lm_tokens=read,
                rm_calls=reads.calls, rm_forwards=reads.forwards, rm_tokens=reads.tokens,
                seconds=share,
            )
        for row in rows:
            costs.pop(row.name, None)
        return rows

    def _parameters(self, row: Row, guide: TokenGuide, config: DecodingConfig) -> Any:
        from vllm import SamplingParams

        greedy = config.mode == "greedy"
        return SamplingParams(
            temperature=0.0 if greedy else config.temperature,
            top_k=0 if greedy else config.top_k,
            top_p=1.0 if greedy else max(config.top_p, _LEAST_TOP_P),
            min_p=0.0 if greedy else config.min_p,
            repetition_penalty=config.repetition_penalty,
            presence_penalty=config.presence_penalty, frequency_penalty=config.frequency_penalty,
            logit_bias=dict(config.logit_bias) or None, min_tokens=config.min_tokens,
            seed=None if greedy else row.draws.getrandbits(63),
            max_tokens=config.max_new_tokens, detokenize=bool(config.stop),
            stop=list(config.stop), ignore_eos=config.ignore_eos,
            stop_token_ids=sorted(ending_ids(config, self.stop_ids)),
            extra_args=None if guide.scorer is None else _wish(guide, config) | {
                "reward_name": row.name
            },
        )


def check_supported(method: Method, config: DecodingConfig) -> None:
    """Raise `ConfigError` unless vLLM can do this by the processor."""
    controls = (config.weight_end, config.target_kl, config.max_kl)
    wanting = {
        f"the method {config.method!r}": not _runs(config.method),
        "several reward models": len(members(method.scorer)) > 1,
        "a schedule or KL of the weight": any(control is not None for control in controls),
    }
    for what, wanted in wanting.items():
        if wanted:
            raise ConfigError(f"The vLLM engine does not know {what}; use --engine transformers.")
    if method.level == "token" and getattr(method.scorer, "head_kind", None) == "scalar":
        check_top_k(config.top_k)


def _runs(name: str) -> bool:
    """Whether a method needs whole samples alone, or guides by a rule that the processor has."""
    kind = METHODS.get(name) if name in METHODS else None
    return kind is not None and (kind.level == "response" or getattr(kind, "open", None) in _RULES)


def _wish(guide: TokenGuide, config: DecodingConfig) -> dict[str, Any]:
    wish: dict[str, Any] = {"reward_weight": config.weight}
    return wish | ({"reward_top_k": config.top_k} if guide.scorer.head_kind == "scalar" else {})


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for as long as it lasts: what one engine is told is not for others."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def built_for() -> str:
    """Where vLLM runs its models; raises `ConfigError` where it is not installed."""
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise _missing(error) from error
    return str(current_platform.device_type)


def check_device(name: str) -> None:
    """Raise `ConfigError` where the policy is to run elsewhere than vLLM does."""
    if name != AUTO and choose_device(name).type != built_for():
        raise ConfigError(
            f"The vLLM that is installed here runs models on {built_for()}, not on {name}; leave "
            "out --device, or use --engine transformers."
        )


def start(source: str, **options: Any) -> Any:
    """A ``vllm.LLM`` in this process.

    Raises:
        ConfigError: vLLM is not installed, or refuses an option.
    """
    # What the reward model read is counted in the worker, which must be in this process.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm import LLM
    except ImportError as error:
        raise _missing(error) from error
    try:
        return LLM(source, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"vLLM refuses to start: {error}") from error


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(
        f"vLLM cannot be imported ({error}); install rewardsteer[vllm], or use the transformers "
        "engine."
    )


def bounds(source: str | Path) -> tuple[int | None, int]:
    """Most positions that a model on disk or on the hub was built for, None when it states none,
    and how many token ids it has embeddings for.

    Raises:
        CheckpointError: it cannot be read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(source))
        return position_limit(config), int(config.get_text_config().vocab_size)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The model {source} cannot be read: {error}") from error
