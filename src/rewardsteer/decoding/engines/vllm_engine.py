"""The vLLM engine, in this process: every extension of a sample is a request, with all that was
written so far as its prompt, which vLLM's prefix cache does not read again.

Draws are made by vLLM, from a seed of the sample's own; so they do not depend on the batch, and are
other draws than those of the transformers engine. Greedy responses are the same.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import policy_settings, with_defaults
from rewardsteer.decoding.engine import Ability, Encoded
from rewardsteer.decoding.engines.registry import ABILITIES, check_abilities
from rewardsteer.decoding.engines.transformers.sample import TransformersSample
from rewardsteer.decoding.engines.vllm_settings import guided_by, vocabulary_card
from rewardsteer.decoding.engines.vllm_start import bounds, built_for, check_device, start
from rewardsteer.decoding.generate import Method, answer
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.decoding.guides.genarm import GenArm
from rewardsteer.decoding.guides.none import Plain
from rewardsteer.decoding.guides.weights import Weight
from rewardsteer.decoding.methods import METHODS
from rewardsteer.decoding.policy import stop_ids
from rewardsteer.decoding.prompts import prepare
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.sampling import TokenLogprob
from rewardsteer.decoding.settling import Activity, settle
from rewardsteer.devices import AUTO, choose_device
from rewardsteer.errors import ConfigError, NonFiniteError
from rewardsteer.models.compatibility import check_vocabularies, members
from rewardsteer.records import Cost, Generation

# vLLM's top_p is above 0; the likeliest token stays with any.
_LEAST_TOP_P = 1e-6
# The guides whose rules the model has.
_RULES = (Plain, Farma, GenArm)


def generate(
    source: str, tokenizer: Any, requests: Sequence[Request], method: Method,
    config: DecodingConfig, *, template: Template, device: str = AUTO,
    reward_device: str | None = None, reward_dtype: str | None = None, **options: Any,
) -> Generator[Generation, None, None]:
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
    check_abilities(VllmEngine, method)
    check_supported(method, config)
    check_device(device)
    guides = isinstance(method, LogitsGuide) and scorer is not None
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
    ready = prepare(
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
    engine = VllmEngine(llm, tokenizer, stop_ids(settings, tokenizer), places=config.batch_size)
    return answer(engine, ready, method, config, template, method.name)


class VllmEngine:
    """A running vLLM with the policy's tokenizer; see `rewardsteer.decoding.engine.Engine`.

    Args:
        llm: a ``vllm.LLM``; with the reward model where it is to guide.
        tokenizer: the policy's.
        stop_ids: tokens that end a response.
        places: samples that are begun without waiting.
    """

    name = "vllm"
    abilities: frozenset[Ability] = ABILITIES["vllm"]
    # To go on is a request of its own.
    stride = 8

    def __init__(
        self, llm: Any, tokenizer: Any, stop_ids: frozenset[int], *, places: int
    ) -> None:
        self.llm, self.tokenizer, self.stop_ids = llm, tokenizer, stop_ids
        self.activity = Activity()
        self._places, self._plain = places, Plain(None, DecodingConfig())
        self._asked: dict[str, TransformersSample] = {}
        self._names = map(str, itertools.count())
        self._texts: dict[int, str] = {}
        self._pump: asyncio.Task[None] | None = None
        self._roomy = asyncio.Event()

    def start(
        self, prompt: Encoded, index: int, config: DecodingConfig, *, draws: random.Random,
        guide: LogitsGuide | None = None, log_probabilities: bool = False, top: int | None = None,
    ) -> TransformersSample:
        """A sample without any token."""
        return TransformersSample(
            self, prompt, index, config, draws=draws, guide=guide or self._plain,
            weight=Weight(config), log_probabilities=log_probabilities, top=top,
        )

    async def room(self) -> None:
        """Return once fewer requests run than there are places."""
        while len(self._asked) >= self._places:
            self._roomy.clear()
            await self._roomy.wait()

    async def close(self) -> None:
        """Abort what runs."""
        if self._pump is not None:
            self._pump.cancel()
        self.llm.llm_engine.abort_request(list(self._asked))
        self._asked.clear()

    def token_text(self, token: int) -> str:
        """A token's own text."""
        if token not in self._texts:
            self._texts[token] = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return self._texts[token]

    def grow(self, sample: TransformersSample) -> None:
        """A sample asks for tokens."""
        name = next(self._names)
        self.activity.note()
        self._asked[name] = sample
        self.llm.llm_engine.add_request(
            name, {"prompt_token_ids": [*sample.prompt_ids, *sample.token_ids]},
            _parameters(sample, name),
        )
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())

    def hold(self, sample: TransformersSample) -> None:
        """Nothing: vLLM's prefix cache finds what was read of a sample."""

    def leave(self, sample: TransformersSample) -> None:
        """A sample is aborted."""
        self.activity.note()
        running = [name for name, one in self._asked.items() if one is sample]
        for name in running:
            del self._asked[name]
        if running:
            self.llm.llm_engine.abort_request(running)
        self._roomy.set()

    async def _run(self) -> None:
        """Take vLLM's steps for as long as some request runs."""
        while self._asked:
            await settle(lambda: self.activity.count)
            began = time.perf_counter()
            ended = [one for one in self.llm.llm_engine.step() if one.finished]
            share = (time.perf_counter() - began) / max(1, len(self._asked))
            for sample in self._asked.values():
                sample.cost += Cost(seconds=share)
            ended = [one for one in ended if one.request_id in self._asked]
            guided = [one for one in ended if _is_guided(self._asked[one.request_id])]
            failed = self.llm.apply_model(_failures)[0] if guided else {}
            for output in ended:
                sample = self._asked.pop(output.request_id)
                if output.request_id in failed:
                    sample.error = NonFiniteError(
                        f"From some token on, {failed[output.request_id]}."
                    )
                _take(sample, output)
                sample.tell()
            if ended:
                self.activity.note()
                self._roomy.set()


def _is_guided(sample: TransformersSample) -> bool:
    return sample.guide.scorer is not None and sample.config.weight != 0


def _parameters(sample: TransformersSample, name: str) -> Any:
    from vllm.sampling_params import RequestOutputKind

    from vllm import SamplingParams

    config, done = sample.config, len(sample.token_ids)
    greedy, separator = config.mode == "greedy", sample.stop.text
    stops = [*config.stop, *([separator] if separator else [])]
    wanted = None if sample.log_probability is None and sample.top is None else sample.top or 0
    return SamplingParams(
        temperature=0.0 if greedy else config.temperature,
        top_k=0 if greedy else config.top_k,
        top_p=1.0 if greedy else max(config.top_p, _LEAST_TOP_P),
        min_p=0.0 if greedy else config.min_p,
        repetition_penalty=config.repetition_penalty,
        presence_penalty=config.presence_penalty, frequency_penalty=config.frequency_penalty,
        logit_bias=dict(config.logit_bias) or None, min_tokens=max(0, config.min_tokens - done),
        seed=None if greedy else sample.draws.getrandbits(63),
        max_tokens=sample.limit - done, detokenize=bool(stops),
        stop=stops, include_stop_str_in_output=True, ignore_eos=config.ignore_eos,
        stop_token_ids=sorted(sample.ending), logprobs=wanted,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={
            "reward_weight": config.weight, "reward_name": name
        } if _is_guided(sample) else None,
    )


def _take(sample: TransformersSample, output: Any) -> None:
    """Give a sample its new tokens, at their cost; one forward pass is that of both models."""
    [answer] = output.outputs
    before = len(sample.token_ids)
    for place, token in enumerate(answer.token_ids):
        if answer.logprobs is not None:
            _record(sample, token, answer.logprobs[place])
        sample.add(token)
        if not sample.growing:
            break
    new, guided = len(sample.token_ids) - before, int(_is_guided(sample))
    read = len(sample.prompt_ids) + before - (output.num_cached_tokens or 0) + new - 1
    sample.cost += Cost(
        new_tokens=new, lm_calls=new, lm_forwards=new, lm_tokens=read, rm_calls=guided * new,
        rm_forwards=guided * new, rm_tokens=guided * read,
    )


def _record(sample: TransformersSample, token: int, found: Any) -> None:
    if sample.log_probability is not None:
        sample.log_probability += found[token].logprob
    if sample.top is not None:
        ranked = sorted(found.items(), key=lambda one: -one[1].logprob)[: sample.top]
        sample.logprobs.append(TokenLogprob(
            found[token].logprob, [(other, one.logprob) for other, one in ranked]
        ))


def _failures(model: Any) -> dict[str, str]:
    """Run in a worker: which requests were not guided to their end, and why."""
    failed = dict(model.failed)
    model.failed.clear()
    return failed


def check_supported(method: Method, config: DecodingConfig) -> None:
    """Raise `ConfigError` unless vLLM can do this; see `check_abilities` for strategies."""
    kind = METHODS.get(config.method)
    if kind.asks == "candidates":
        raise ConfigError(
            f"The method {config.method!r} asks a scalar head about single candidates, which vLLM "
            "cannot do; use a reward model with a vocabulary head (farma or genarm, trained or "
            "distilled), or --engine transformers."
        )
    controls = (config.weight_end, config.target_kl, config.max_kl)
    wanting = {
        f"the method {config.method!r}": issubclass(kind, LogitsGuide) and kind not in _RULES,
        "several reward models": len(members(method.scorer)) > 1,
        "a schedule or KL of the weight": any(control is not None for control in controls),
    }
    for what, wanted in wanting.items():
        if wanted:
            raise ConfigError(f"The vLLM engine does not know {what}; use --engine transformers.")
