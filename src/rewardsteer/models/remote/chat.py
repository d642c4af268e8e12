"""A language model behind an OpenAI-compatible address that answers one question at a time."""

import logging
from json import JSONDecodeError
from typing import Any

from rewardsteer.addresses import (
    KEY_ENV,
    TIMEOUT,
    failure,
    open_client,
    openai_library,
    shown_address,
)
from rewardsteer.errors import ConfigError

logger = logging.getLogger(__name__)

_SHOWN = 300  # characters of an answer that is none


class ChatJudge:
    """A judge's model: questions in, answers at temperature 0 out, where the model takes that.

    Args:
        url: base address of the server, ending in ``/v1``.
        model: the model's name there.
        key_env: environment variable that holds the key; a server that wants none needs none.
        timeout: seconds to wait for an answer.
        options: further fields of a request (``logprobs``, …). One that the model refuses is left
            out from then on, with a warning.

    Raises:
        ConfigError: the package openai is not installed.
    """

    def __init__(
        self, url: str, model: str, *, key_env: str = KEY_ENV, timeout: float = TIMEOUT,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._library: Any = openai_library(
            "A judge behind an address", "judge", "leave the judge out"
        )
        self.url, self.model = shown_address(url), model
        self._key_env, self._timeout = key_env, timeout
        # Some models take no temperature but their own.
        self.options: dict[str, Any] = {"temperature": 0, **(options or {})}
        self._client = open_client(self._library, url, key_env, timeout)

    def check(self) -> None:
        """Ask a short question, so that a wrong address, key or model's name shows at once.

        Raises:
            ConfigError: the server cannot be reached, refuses, or does not speak the protocol.
        """
        try:
            reply = self._complete(self._client.with_options(max_retries=1), "Say yes.")
        except self._library.OpenAIError as error:
            raise self._failure(error) from error
        self._require_completion(reply)

    def ask(self, question: str) -> tuple[Any, str]:
        """The reply to a question and, where it holds no answer, why.

        Raises:
            ConfigError: the server cannot be reached, fails again and again, or does not speak the
                protocol.
        """
        lib = self._library
        try:
            reply = self._complete(self._client, question)
        except (lib.BadRequestError, lib.UnprocessableEntityError) as error:
            # One question that is too long, or that a filter stops, must not end the run.
            return None, str(error)
        except lib.OpenAIError as error:
            raise self._failure(error) from error
        self._require_completion(reply)
        reason = getattr(reply.choices[0], "finish_reason", None)
        return reply, "" if words(reply) else f"an empty answer (finish reason: {reason})"

    def _require_completion(self, reply: Any) -> None:
        if not getattr(reply, "choices", None):
            raise self._failure(f"its answer is no chat completion: {str(reply)[:_SHOWN]}.")

    def _complete(self, client: Any, question: str) -> Any:
        """The reply to a question; its text where it is no JSON."""
        lib, options = self._library, dict(self.options)
        refused = []
        while True:
            try:
                reply = self._create(client, question, options)
            except (lib.BadRequestError, lib.UnprocessableEntityError) as error:
                named = [name for name in options if _names(error, name)]
                if not named:
                    raise
                refused += named
                options = {name: value for name, value in options.items() if name not in named}
                continue
            break
        for name in refused:
            value = self.options.pop(name, None)
            if value is not None:  # else another thread has said it
                logger.warning(
                    "The judge %s refuses %s %s and is asked at its own: its answers may differ "
                    "from run to run.", self.model, name, value,
                )
        return reply

    def _create(self, client: Any, question: str, options: dict[str, Any]) -> Any:
        try:
            return client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": question}], **options
            )
        except JSONDecodeError as error:
            return error.doc

    def _failure(self, error: Exception | str) -> ConfigError:
        return failure(
            self._library, error, url=self.url, key_env=self._key_env, timeout=self._timeout,
            address=f"it ends in /v1; the model's name is {self.model}",
            key_option=" (another name: key_env=, --judge-key-env)",
            relief="lower concurrency, or go on later",
        )


def words(reply: Any) -> str:
    """What the judge wrote; "" where the reply holds no answer."""
    try:
        return str(reply.choices[0].message.content or "")
    except (AttributeError, IndexError, TypeError):
        return ""


def _names(error: Any, option: str) -> bool:
    """Whether a refusal is about an option."""
    return getattr(error, "param", None) == option or option in str(error).lower()
