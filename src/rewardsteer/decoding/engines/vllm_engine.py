"""Answers to prompts by vLLM in this process: the policy alone, guided, or the best of n.

Draws are made by vLLM, from a seed of the row's own; so they do not depend on the batch, and are
other draws than those of the transformers engine. Greedy responses are the same.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding import generate as answers
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import policy_settings, with_defaults
from rewardsteer.decoding.engines.hf import stop_ids
from rewardsteer.decoding.engines.vllm_plugin import register
from rewardsteer.decoding.engines.vllm_settings import guided_by, vocabulary_card
from rewardsteer.decoding.guide import Method, TokenGuide
from rewardsteer.decoding.loop import Row
from rewardsteer.decoding.methods import METHODS
from rewardsteer.decoding.methods.none import Plain
from rewardsteer.decoding.penalties import ending_ids
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.vocabulary import VocabularyGuide
from rewardsteer.devices import AUTO, choose_device
from rewardsteer.errors import CheckpointError, ConfigError, NonFiniteError
from rewardsteer.models.compatibility import check_vocabularies, members
from rewardsteer.models.limits import position_limit
from rewardsteer.records import Cost, Generation

# vLLM's top_p is above 0; the likeliest token stays with any.
_LEAST_TOP_P = 1e-6
# The guides whose rules the model has.
_RULES = (Plain.open, VocabularyGuide.open)
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
        reward_device, reward_dtype: of a reward model that scores whole samples; one that guides
            runs where the policy does, in its precision.
        options: engine arguments of vLLM.

    Raises:
        ConfigError: vLLM is not installed, cannot do this, or refuses an option.
        MismatchError: the two tokenizers differ, or the reward model has no vocabulary head.
        DataError: a prompt that is too long or empty.
    """
    settings = policy_settings(source)
    config, scorer = with_defaults(config, settings), method.scorer
    check_supported(method, config)
    check_device(device)
    guides = method.level == "token" and scorer is not None
    if guides and (reward_device or reward_dtype):
        raise ConfigError(
            "A reward model that guides inside vLLM runs where the policy does, in its precision; "
            "leave out --reward-device and --reward-dtype."
        )
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
    if guides:
        vocabulary_card(scorer.name, Path(scorer.name))
        options["hf_overrides"] = options.get("hf_overrides", {}) | guided_by([scorer.name])
    llm = start(source, **options)
    if scorer is not None and not guides:
        # After vLLM has taken what it takes of the device.
        scorer.reward_model.to(choose_device(reward_device or built_for()))
    engine = VllmEngine(llm, tokenizer, stop_ids(settings, tokenizer))
    # Typed for the transformers engine, of which it needs the stream and the tokenizer.
    return answers.stream(engine, ready, method, config, template, method.name)  # type: ignore[arg-type]


class VllmEngine:
    """A running vLLM with the policy's tokenizer; see `rewardsteer.decoding.engines.hf.HfEngine`.

    Args:
        llm: a ``vllm.LLM``; with the reward model where it is to guide.
        tokenizer: the policy's.
        stop_ids: tokens that end a response.
    """

    def __init__(self, llm: Any, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self.llm, self.tokenizer, self.stop_ids = llm, tokenizer, stop_ids

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
        guided = guide.scorer is not None and config.weight != 0
        began = time.perf_counter()
        outputs = self.llm.generate(
            [{"prompt_token_ids": list(row.prompt_ids)} for row in rows],
            [self._parameters(row, config, guided) for row in rows], use_tqdm=False,
        )
        share = (time.perf_counter() - began) / len(rows)
        failed = self.llm.apply_model(_failures)[0] if guided else {}
        for row, output in zip(rows, outputs, strict=True):
            [answer] = output.outputs
            row.token_ids = list(answer.token_ids)
            row.finish_reason = answer.finish_reason
            if row.text is not None and answer.stop_reason in config.stop:
                row.finish_reason = "length"  # No token ended it.
                row.text.add(row.token_ids)
            if row.name in failed:
                row.error = NonFiniteError(f"From some token on, {failed[row.name]}.")
            new = len(row.token_ids)
            read = len(row.prompt_ids) - (output.num_cached_tokens or 0) + new - 1
            # One forward pass is that of both models.
            row.cost = Cost(
                new_tokens=new, lm_calls=new, lm_forwards=new, lm_tokens=read,
                rm_calls=guided * new, rm_forwards=guided * new, rm_tokens=guided * read,
                seconds=share,
            )
        return rows

    def _parameters(self, row: Row, config: DecodingConfig, guided: bool) -> Any:
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
            extra_args={
                "reward_weight": config.weight, "reward_name": row.name
            } if guided else None,
        )


def _failures(model: Any) -> dict[str, str]:
    """Run in a worker: which requests were not guided to their end, and why."""
    failed = dict(model.failed)
    model.failed.clear()
    return failed


def check_supported(method: Method, config: DecodingConfig) -> None:
    """Raise `ConfigError` unless vLLM can do this."""
    controls = (config.weight_end, config.target_kl, config.max_kl)
    kind = METHODS.get(config.method) if config.method in METHODS else None
    if getattr(kind, "needs", None) == "scalar" and getattr(kind, "level", None) == "token":
        raise ConfigError(
            f"The method {config.method!r} asks a scalar head about single candidates, which vLLM "
            "cannot do; use a reward model with a vocabulary head (farma or genarm, trained or "
            "distilled), or --engine transformers."
        )
    wanting = {
        f"the method {config.method!r}": not _runs(kind),
        "several reward models": len(members(method.scorer)) > 1,
        "a schedule or KL of the weight": any(control is not None for control in controls),
    }
    for what, wanted in wanting.items():
        if wanted:
            raise ConfigError(f"The vLLM engine does not know {what}; use --engine transformers.")


def _runs(kind: Any) -> bool:
    """Whether a method needs whole samples alone, or guides by a rule that the model has."""
    return kind is not None and (kind.level == "response" or getattr(kind, "open", None) in _RULES)


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
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm import LLM
    except ImportError as error:
        raise _missing(error) from error
    register()
    try:
        return LLM(source, **options)
    except ValidationError as error:
        # Its own text may hold the whole configuration.
        reasons = [
            one["msg"] + (f", got {one['input']!r}" if isinstance(one["input"], str) else "")
            for one in error.errors(include_url=False)
        ]
        raise ConfigError(f"vLLM refuses to start: {'; '.join(reasons)}") from error
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
