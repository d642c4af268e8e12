"""Failures: what the log says of them, and what a client is told."""

import logging
import traceback

from rewardsteer.errors import ConfigError, DataError, MismatchError, RewardsteerError
from rewardsteer.serving.errors import ApiError, bad_request, failed

logger = logging.getLogger(__name__)

# Places in the code that are told of an error, from where it was raised outwards.
_PLACES = 12


def log_failure(error: BaseException) -> None:
    """Say where something failed. An error's own words may quote a user's text, so only its kind
    and the places in the code are logged."""
    places = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), lookup_lines=False
    )
    innermost = list(reversed(places))[:_PLACES]
    where = " < ".join(f"{place.filename}:{place.lineno} ({place.name})" for place in innermost)
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    logger.error("%s at %s", name, where)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no room."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def is_fatal(error: BaseException) -> bool:
    """Whether nothing that follows can be right: the accelerator's state is damaged."""
    if is_out_of_memory(error):
        return False
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an error in our code."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ConfigError | DataError | MismatchError):
        return bad_request(str(error))
    if is_out_of_memory(error):
        return ApiError(
            503, "The server ran out of memory at this request; ask for fewer or shorter "
            "responses, or try again later.", code="out_of_memory", retry_after=5,
        )
    if isinstance(error, RewardsteerError):
        return ApiError(500, str(error), code="model_error")
    return failed()
