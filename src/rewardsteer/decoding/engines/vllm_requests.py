"""The request to vLLM that continues a sample, and what is taken from its answer."""

from typing import Any

from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.records import Cost

# vLLM's top_p is above 0; the likeliest token stays with any.
_LEAST_TOP_P = 1e-6


def is_guided(sample: TokenSample) -> bool:
    """Whether a reward model acts on it."""
    return sample.guide.scorer is not None and sample.config.weight != 0


def parameters(sample: TokenSample, name: str) -> Any:
    """vLLM's sampling parameters for continuing a sample by the request ``name``."""
    from vllm.sampling_params import RequestOutputKind

    from vllm import SamplingParams

    config, done = sample.config, len(sample.token_ids)
    longest = sample.limit - done
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
        logit_bias=_biases(sample) or None,
        min_tokens=min(max(0, config.min_tokens - done), longest),
        seed=None if greedy else sample.rng.getrandbits(63),
        max_tokens=longest, detokenize=bool(stops),
        stop=stops, include_stop_str_in_output=True, ignore_eos=config.ignore_eos,
        stop_token_ids=sorted(sample.ending), logprobs=wanted,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={
            "reward_weight": config.weight, "reward_name": name
        } if is_guided(sample) else None,
    )


def _biases(sample: TokenSample) -> dict[int, float]:
    """The settings' biases, and vLLM's lowest for tokens that a second policy cannot read.

    Ids that only pad the policy's output layer get none: there may be thousands, vLLM reads each
    request's biases whenever its batch changes, and its GPU runner refuses more than 1,024.
    """
    most = sample.engine.readable
    undrawable = range(sample.drawable or most, most)
    return dict(sample.config.logit_bias) | dict.fromkeys(undrawable, -100.0)


def take(sample: TokenSample, output: Any) -> None:
    """Give a sample its new tokens and their cost; one forward pass runs both models."""
    [answer] = output.outputs
    before = len(sample.token_ids)
    for place, token in enumerate(answer.token_ids):
        if answer.logprobs is not None:
            found = answer.logprobs[place]
            sample.record(token, {other: one.logprob for other, one in found.items()})
        sample.add(token)
        if not sample.growing:
            break
    new, guided = len(sample.token_ids) - before, int(is_guided(sample))
    read = len(sample.prompt_ids) + before - (output.num_cached_tokens or 0) + new - 1
    sample.cost += Cost(
        new_tokens=new, lm_calls=new, lm_forwards=new, lm_tokens=read, rm_calls=guided * new,
        rm_forwards=guided * new, rm_tokens=guided * read, guided_steps=guided * new,
    )
