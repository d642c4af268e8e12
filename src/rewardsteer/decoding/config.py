"""How to generate. No torch here: the command line and recipes read it."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints, model_validator

from rewardsteer.configuration import Config
from rewardsteer.errors import ConfigError

# What scores in float32 can hold: beyond it a weight or a temperature makes them infinite.
MOST_WEIGHT = 1e20
LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-6, 1e6



def _as_pairs(given: Any) -> Any:
    if isinstance(given, Mapping):
        return tuple(given.items())
    if isinstance(given, tuple | list):
        return given
    raise ValueError("expected numbers by token id, such as {5: -1.5}")


# Pairs, so that settings can be hashed; given and written as a mapping.
Biases = Annotated[
    tuple[tuple[int, Annotated[float, Field(ge=-100, le=100)]], ...], BeforeValidator(_as_pairs),
    PlainSerializer(dict),
]
# One string or several.
Strings = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1)], ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
]


class DecodingConfig(Config):
    """Settings of one generation run.

    Attributes:
        method: name of the decoding method.
        mode: ``greedy`` takes the best token, ``sample`` draws one.
        temperature: divides the (guided) scores before drawing; without meaning when greedy. 0 is
            the mode greedy. Where it is not set, the policy's own, else 1
            (`rewardsteer.decoding.defaults`).
        top_k: tokens to draw from, 0 for all. Methods that ask about candidates (``args``,
            ``pargs``, ``cd``) ask the reward model about the policy's ``top_k`` best tokens, greedy
            or not; where it is not set, 10. For the other methods, where it is not set, the
            policy's own, else 0.
        top_p: draw from the likeliest tokens whose probabilities sum to this; 1: from all. The
            default of this and the next two settings is the policy's own, else neutral.
        min_p: draw only tokens that are at least this share as probable as the likeliest.
        repetition_penalty: positive scores of tokens in prompt and response are divided by it,
            negative ones multiplied; 1: none. It counts in greedy mode too, and so do the next
            five settings.
        presence_penalty: subtracted from the scores of tokens that are in the response.
        frequency_penalty: subtracted as often as a token is in the response.
        logit_bias: added to the scores of tokens, by token id.
        min_tokens: no token or string ends a response with fewer tokens; where it is not set, the
            policy's ``min_new_tokens``, else 0.
        stop_token_ids: tokens that end a response besides the policy's end-of-text.
        ignore_eos: the policy's end-of-text token does not end a response.
        stop: strings that end a response; the string is removed from the response.
        include_stop_str_in_output: keep the stop string at the end of the response.
        weight: w of the guided methods, in logits per reward unit; 0 is the policy alone. For
            ``genarm`` this is the paper's 1/β. With several reward models it multiplies their sum.
        policy_power: α of the methods that guide token by token: they draw from p^α · exp(w · r).
            Above 1 the policy counts more, below it less, 0: rewards alone decide. KL divergences
            are from the policy at α = 1.
        ensemble_rule: how several reward models make one reward, each times its own weight: their
            ``sum``, the least of them (``min``), or ``cautious``, their mean less
            ``ensemble_deviations`` standard deviations.
        weight_schedule: how w changes over a response, for the methods that guide token by token:
            not at all, or from ``weight`` at the first token to ``weight_end`` at the
            ``max_new_tokens``-th, along a line or half a cosine wave.
        weight_end: where the schedule ends; needed by a schedule, refused without one.
        target_kl: replaces a fixed w in the methods that guide token by token: at every token the
            w ≥ 0 with which the guided distribution has this KL divergence, in nats, from plain
            sampling, both over the policy's ``top_k`` best tokens. Of ``weight`` only the sign
            counts then. None: no target.
        max_kl: upper limit of the same divergence: w is lowered where the divergence would exceed
            it, and never raised. None: no limit.
        gate: which tokens the methods that guide token by token guide, the policy drawing the other
            ones alone: ``always``; those with a high ``entropy`` of the policy's distribution
            (nats, at temperature 1), or a high probability of all tokens but its best (``top1``);
            those with a high KL divergence of the guided distribution from the policy's (``kl``,
            nats); the ``first`` tokens; or ``random`` ones.
        gate_threshold: least measure of a guided token, for ``entropy``, ``top1`` and ``kl``.
        gate_share: instead of a threshold, the share of tokens that is guided, from 0 to 1: those
            whose measure is among the greatest of the response so far. For ``first`` a share of
            ``max_new_tokens``, for ``random`` a probability.
        draft: speculative decoding in the transformers engine, for the policy alone and the methods
            that ask about all next tokens (``farma``, ``genarm``, ``q_sharp``): proposed tokens are
            verified in one pass. ``ngram`` proposes what followed the last tokens earlier,
            ``policy`` what the policy draws alone, which saves reward model passes. Responses do
            not change.
        draft_tokens: longest draft.
        n: responses drawn per prompt by ``best_of_n``, ``soft_best_of_n``, ``reward_vote`` and
            ``speculative_rejection``, particles of ``particle``, proposals for a step of ``gsi``,
            and at most by ``majority_vote``, ``goal_filter`` and ``adaptive_best_of_n``.
        comparisons: of ``tournament``: all pairs of the ``n`` responses (``all``), or the best so
            far with the next, n − 1 pairs (``knockout``).
        choice_temperature: of ``soft_best_of_n`` and ``reward_vote``, in reward units: a response
            weighs exp(reward / temperature). 0: the highest reward alone.
        draw_cost: of ``adaptive_best_of_n``, in reward units: it stops when another response is
            expected to gain no more. 0: all ``n``.
        length_control: share, from 0 to 1, of the effect of the log length on a prompt's rewards (a
            linear fit) that is removed before ``soft_best_of_n``, ``reward_vote`` and
            ``adaptive_best_of_n`` choose.
        beam: hypotheses that ``beam`` keeps of each prompt, and trees of ``dvts``.
        branches: steps drawn from each hypothesis in a round of ``beam`` and ``dvts``.
        step_value: what ``beam`` and ``dvts`` rank by and ``particle`` weights by: the ``reward``
            of the unfinished response, or its similarity to a ``goal`` state; ``auto``: the goal
            state if one is given.
        value_noise: σ, the standard deviation of the error of ``beam``'s values: it keeps only
            hypotheses, at most ``beam``, whose values do not differ significantly from the best
            one's. None: always ``beam``.
        step_separator: a step of ``beam``, ``dvts``, ``particle``, ``rsd`` and ``gsi`` ends with
            the token that completes this string; "": no string ends a step.
        step_tokens: longest step.
        max_steps: most rounds of steps.
        accept_reward: δ of ``rsd``, the least reward of the response with a step of the small
            policy that keeps the step; u of ``gsi``, likewise of this reward plus log-ratio / w.
        particle_potential: what ``particle`` weights responses with: ``exp`` (e^(w · value)) for
            rewards of any size, ``probability`` (value^w) for rewards from 0 to 1.
        particle_answer: what ``particle`` answers with: the particle of the highest value
            (``best``), one drawn by weight (``draw``), or the final answer of the greatest weight
            (``vote``).
        resample_below: ``particle`` resamples where the effective number of particles falls below
            this share of ``n``; 1: whenever weights differ, 0: never.
        entropy_threshold: a segment of ``cards`` ends before a token if the entropy of the policy's
            distribution (nats, temperature 1) is at least this …
        segment_min: … and the segment has at least this many tokens.
        segment_tokens: longest segment.
        reward_target: r* of ``cards``, which needs it: a reward a little above what the policy's
            responses get on average.
        reward_share: α of ``cards``: the reward required of a segment rises along a line from
            (1 − α) · r(prompt) + α · r* at the beginning of a response to r* at ``max_new_tokens``.
            1: always r*, and the prompt's own reward is not computed.
        acceptance: β of ``cards``: a segment is accepted with probability min(1,
            exp((r − required reward) / β)). 0: only if r reaches it.
        max_rejections: after this many rejections the best proposal of a segment is taken.
        reject_share: α of ``speculative_rejection``: share of the unfinished responses that a
            decision drops, at least one.
        decision_tokens: ``speculative_rejection`` decides whenever the unfinished responses to a
            prompt hold ``n`` times this many tokens: first at this many tokens each, then when the
            remaining ones reach that total.
        drop_rule: how ``goal_filter`` drops responses, see
            `rewardsteer.decoding.strategies.early_rejection`.
        drop_threshold: a similarity, or a probability for the rule ``probability``.
        drop_start: tokens at the beginning that never drop a response.
        drop_patience: tokens in a row below the threshold, for the rule ``patience``.
        calibration: file from ``rewardsteer calibrate``, for the rule ``probability``.
        vote_stop: when ``majority_vote`` and ``goal_filter`` stop sampling: once a window of
            responses agrees (``esc``), once the majority is unlikely to change (``adaptive``), or
            after ``n``. Responses that were dropped do not vote.
        vote_window: responses per window, drawn together; also for ``adaptive_best_of_n``.
        vote_confidence: for ``adaptive``: required probability that the majority stands; 1 draws
            all.
        max_new_tokens: longest response, end-of-text included.
        batch_size: rows decoded together; results do not depend on it beyond rounding.
        seed: every request draws from its own generator, made from this and the request's id.
    """

    method: str = "none"
    mode: Literal["greedy", "sample"] = "sample"
    temperature: float = Field(default=1.0, ge=LEAST_TEMPERATURE, le=MOST_TEMPERATURE)
    top_k: int = Field(default=10, ge=0)
    top_p: float = Field(default=1.0, ge=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: Biases = ()
    min_tokens: int = Field(default=0, ge=0)
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    stop: Strings = ()
    include_stop_str_in_output: bool = False
    weight: float = Field(default=1.0, ge=-MOST_WEIGHT, le=MOST_WEIGHT)
    policy_power: float = Field(default=1.0, ge=0, le=MOST_WEIGHT)
    ensemble_rule: Literal["sum", "min", "cautious"] = "sum"
    ensemble_deviations: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    weight_schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_end: float | None = Field(default=None, ge=-MOST_WEIGHT, le=MOST_WEIGHT)
    target_kl: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_kl: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    gate: Literal["always", "entropy", "top1", "kl", "first", "random"] = "always"
    gate_threshold: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    gate_share: float | None = Field(default=None, ge=0, le=1)
    draft: Literal["none", "ngram", "policy"] = "none"
    draft_tokens: int = Field(default=4, ge=1)
    n: int = Field(default=8, ge=1)
    comparisons: Literal["all", "knockout"] = "all"
    choice_temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    draw_cost: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    length_control: float = Field(default=0.0, ge=0, le=1)
    beam: int = Field(default=4, ge=1)
    branches: int = Field(default=4, ge=1)
    step_value: Literal["auto", "reward", "goal"] = "auto"
    value_noise: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    step_separator: str = "\n\n"
    step_tokens: int = Field(default=2048, ge=1)
    max_steps: int = Field(default=40, ge=1)
    accept_reward: float = Field(default=0.7, allow_inf_nan=False)
    particle_potential: Literal["exp", "probability"] = "exp"
    particle_answer: Literal["best", "draw", "vote"] = "best"
    resample_below: float = Field(default=0.5, ge=0, le=1)
    entropy_threshold: float = Field(default=3.0, ge=0)
    segment_min: int = Field(default=4, ge=1)
    segment_tokens: int = Field(default=64, ge=1)
    reward_target: float | None = Field(default=None, allow_inf_nan=False)
    reward_share: float = Field(default=0.5, ge=0, le=1)
    acceptance: float = Field(default=0.7, ge=0, allow_inf_nan=False)
    max_rejections: int = Field(default=20, ge=0)
    reject_share: float = Field(default=0.5, gt=0, lt=1)
    decision_tokens: int = Field(default=16, ge=1)
    drop_rule: Literal["none", "below", "patience", "probability"] = "below"
    drop_threshold: float = Field(default=0.0, allow_inf_nan=False)
    drop_start: int = Field(default=5, ge=0)
    drop_patience: int = Field(default=5, ge=1)
    calibration: str | None = None
    vote_stop: Literal["none", "esc", "adaptive"] = "none"
    vote_window: int = Field(default=5, ge=1)
    vote_confidence: float = Field(default=0.95, ge=0.5, le=1)
    max_new_tokens: int = Field(default=64, ge=1)
    batch_size: int = Field(default=8, ge=1)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _cold(cls, given: Any) -> Any:
        """Temperature 0 is greedy decoding, as everywhere else."""
        known = given.get("temperature") if isinstance(given, dict) else None
        if isinstance(known, int | float) and known < 0:
            raise ValueError(
                "the temperature must be above 0; 0 (--greedy) takes the likeliest token each "
                f"time; got {known}"
            )
        if known == 0:
            rest = {name: value for name, value in given.items() if name != "temperature"}
            return rest | {"mode": "greedy"}
        return given

    @model_validator(mode="after")
    def _one_control(self) -> "DecodingConfig":
        scheduled = self.weight_schedule != "constant"
        if scheduled != (self.weight_end is not None):
            raise ValueError(
                "a weight_schedule (linear or cosine) and a weight_end go together; got "
                f"weight_schedule={self.weight_schedule!r} and weight_end={self.weight_end}"
            )
        if self.target_kl is not None and (scheduled or self.max_kl is not None):
            raise ValueError("a target_kl leaves no room for a weight_schedule or a max_kl")
        return self

    @model_validator(mode="after")
    def _check_gate(self) -> "DecodingConfig":
        given = [one for one in (self.gate_threshold, self.gate_share) if one is not None]
        if self.gate == "always" and given:
            raise ValueError(
                "a gate_threshold or gate_share belongs to a gate; set gate to entropy, top1, kl, "
                "first or random"
            )
        if self.gate in ("first", "random") and (self.gate_share is None or len(given) > 1):
            raise ValueError(f"the gate {self.gate!r} needs a gate_share, and no gate_threshold")
        if self.gate != "always" and len(given) != 1:
            raise ValueError(
                f"the gate {self.gate!r} needs either a gate_threshold or a gate_share, got "
                f"{'both' if given else 'neither'}"
            )
        return self


def check_weights(models: int, weights: Sequence[float]) -> None:
    """Raise `ConfigError` unless there is a finite weight for each reward model."""
    if len(weights) != models:
        raise ConfigError(
            f"Expected one weight for each reward model, got {len(weights)} for {models}; give as "
            "many weights as reward models, in the same order."
        )
    wrong = [weight for weight in weights if not math.isfinite(weight)]
    if wrong:
        raise ConfigError(f"Weights of reward models must be finite numbers, got {wrong[0]}.")
