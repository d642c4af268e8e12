"""Decoding settings of a request: the server's defaults, overridden by its fields."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.methods import BEST_OF, CONTROLS, METHODS, OF_STRATEGIES, unused
from rewardsteer.errors import ConfigError
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.fields import GREEDY_BELOW
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.schema import GenerationFields
from rewardsteer.serving.wording import told

# Request fields with the same name in `DecodingConfig`.
_SAME = (
    "method", "weight", "weight_schedule", "weight_end", "target_kl", "max_kl",
    "policy_power", "gate", "gate_threshold", "gate_share", "seed", "top_p", "min_p",
    "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "min_tokens",
    "stop_token_ids", "ignore_eos", "stop", "include_stop_str_in_output",
)
# Settings of strategies that a request may give; files of this machine are not for clients.
_OF_METHODS = OF_STRATEGIES - {"calibration"}


def settings_of(request: GenerationFields, served: ServedModels) -> DecodingConfig:
    """The settings of a request: its own fields, else the server's.

    Raises:
        ApiError: they contradict each other, or are too large.
    """
    given: dict[str, Any] = {
        name: getattr(request, name) for name in _SAME if getattr(request, name) is not None
    }
    if request.best_of is not None:
        given["n"] = request.best_of
    named = model_settings(request.model, served)[1]
    _add(given, named, f"The model {request.model!r} stands for")
    _add(given, _method_settings(request), "method_settings has")
    if "method" in given:
        try:
            served.methods.check_name(given["method"])
        except ConfigError as error:
            raise bad_request(str(error), "model" if "method" in named else "method") from error
    _check_stops(request.stops, served)
    given.setdefault("seed", secrets.randbits(31))
    if "weight_end" not in given and given.get("weight_schedule") == "constant":
        given["weight_end"] = None
    if "gate" in given:
        given = {"gate_threshold": None, "gate_share": None} | given
    if request.top_k is not None:
        given["top_k"] = max(0, request.top_k)
    if request.temperature is not None:
        greedy = request.temperature <= GREEDY_BELOW
        given |= {"mode": "greedy"} if greedy else {
            "mode": "sample", "temperature": request.temperature,
        }
    try:
        config = DecodingConfig.model_validate(served.start_of(given.get("method")) | given)
    except ValidationError as error:
        message, name = told(error.errors(), given)
        if name in (request.method_settings or {}):
            message, name = f"method_settings.{message}", f"method_settings.{name}"
        raise bad_request(message, name) from error
    _check(request, config, served)
    return config


def _add(given: dict[str, Any], more: Mapping[str, Any], where: str) -> None:
    """Add settings; raises `ApiError` where the request has another value elsewhere."""
    for name, value in more.items():
        if given.setdefault(name, value) != value:
            raise bad_request(
                f"{where} {name} = {value!r}, but the request says {given[name]!r}; leave out one "
                "of the two.", name,
            )


def model_settings(asked: str | None, served: ServedModels) -> tuple[str | None, dict[str, Any]]:
    """The model that a request names, and the settings for which its name stands.

    ``policy@farma`` is the policy by the method farma, ``policy@best_of_8`` by best_of_n with n =
    8, ``policy@majority_vote_16`` likewise: for clients that cannot send other fields. Raises
    `ApiError` on a number for a method that has no use for one.
    """
    if asked is None or not asked.startswith(f"{served.name}@"):
        return asked, {}
    method = asked[len(served.name) + 1 :]
    head, _, count = method.rpartition("_")
    if method in served.methods.names or not count.isdecimal():
        return served.name, {"method": method}
    method = BEST_OF if head == "best_of" else head
    if unused(method, ["n"]):
        raise bad_request(
            f"The method {method!r} does not draw a number of responses; ask for the model "
            f"'{served.name}@{method}'.", "model",
        )
    return served.name, {"method": method, "n": min(int(count), 2**31 - 1)}


def _method_settings(request: GenerationFields) -> dict[str, Any]:
    given = request.method_settings or {}
    unknown = next((name for name in given if name not in _OF_METHODS), None)
    if unknown is not None:
        raise bad_request(
            f"method_settings knows no {unknown!r}; it has {', '.join(sorted(_OF_METHODS))}.",
            f"method_settings.{unknown}",
        )
    if given.get("drop_rule") == "probability":
        raise bad_request(
            "method_settings.drop_rule: 'probability' needs the file of a calibration, which "
            "requests cannot name; use 'below', 'patience' or 'none'.", "method_settings.drop_rule",
        )
    return given


def _check(request: GenerationFields, config: DecodingConfig, served: ServedModels) -> None:
    assert served.engine is not None
    if config.top_k > served.engine.vocabulary_size:
        raise bad_request(
            f"top_k = {config.top_k} exceeds the policy's vocabulary of "
            f"{served.engine.vocabulary_size} tokens.", "top_k",
        )
    named = {"logit_bias": request.logit_bias, "stop_token_ids": request.stop_token_ids}
    for name, tokens in named.items():
        wrong = next((one for one in tokens or () if one >= served.engine.vocabulary_size), None)
        if wrong is not None:
            raise bad_request(
                f"{name}: token ids must be from 0 to {served.engine.vocabulary_size - 1}, got "
                f"{wrong}.", name,
            )
    served.check_candidates(config)
    if config.method != BEST_OF and (request.best_of or 1) > 1:
        raise bad_request(f"best_of is for the method {BEST_OF!r}.", "best_of")
    if config.method == BEST_OF and (request.n or 1) > 1:
        raise bad_request(f"The method {BEST_OF!r} gives one response; use best_of for how many "
                          "are drawn.", "n")


def check_meaning(request: GenerationFields, config: DecodingConfig, served: ServedModels) -> None:
    """Raise `ApiError` on settings without effect in this request, as the command line does."""
    given = {name: getattr(request, name) for name in ("weight", *CONTROLS)}
    # A weight of 0 means no guidance, for any method.
    wrong = unused(config.method, [
        name for name, value in given.items()
        if value not in (None, "constant") and (name != "weight" or value != 0)
    ] + list(request.method_settings or {}))
    if wrong is not None:
        raise bad_request(
            f"{wrong[0]} means nothing to the method {config.method!r}; leave it out, or use "
            f"{wrong[1]}.",
            f"method_settings.{wrong[0]}" if wrong[0] in OF_STRATEGIES else wrong[0],
        )
    asked = getattr(request, "logprobs", None)
    if asked is not None and asked is not False and METHODS.get(config.method).wants_drafter:
        raise bad_request(
            f"The method {config.method!r} takes tokens of a second policy, and the policy's "
            "log-probabilities of them are not known; leave out logprobs, or use another method.",
            "logprobs",
        )
    if request.stream_options is not None and not request.stream:
        raise bad_request("stream_options are for streams; set stream to true, or leave them out.",
                          "stream_options")


def _check_stops(stops: Sequence[str], served: ServedModels) -> None:
    limits = served.limits
    if len(stops) > limits.max_stops:
        raise bad_request(f"At most {limits.max_stops} stop strings are taken.", "stop")
    for stop in stops:
        if not 1 <= len(stop) <= limits.max_stop_characters:
            raise bad_request(
                f"A stop string has 1 to {limits.max_stop_characters} characters, got one of "
                f"{len(stop)}.", "stop",
            )
