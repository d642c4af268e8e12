"""A server behind an OpenAI-compatible address: requests, what it can do, and what goes wrong."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from rewardsteer.addresses import (
    KEY_ENV,
    failure,
    open_client,
    openai_library,
    shown,
    shown_address,
)
from rewardsteer.decoding.memory import EngineError
from rewardsteer.errors import ConfigError, DataError

_TIMEOUT = 600.0  # seconds
# A request field, and the prefix with which servers then name tokens.
NAMED_BY_ID = {"return_tokens_as_token_ids": True}
_NAME = "token_id:"


class Endpoint:
    """A server, asked through the package openai.

    Args:
        url: its base address, ending in ``/v1``.
        model: the model's name there; None: the only one.
        key_env: environment variable that holds the key; a server that wants none needs none.
        timeout: seconds to wait for an answer.

    Attributes:
        longest: tokens that prompt and response may have together; None where it does not say.

    Raises:
        ConfigError: the package is not installed; the server cannot be reached, refuses the key, or
            does not serve the model.
    """

    def __init__(
        self, url: str, model: str | None = None, *, key_env: str = KEY_ENV,
        timeout: float = _TIMEOUT,
    ) -> None:
        self._library: Any = openai_library("The engine openai", "openai", "use another engine")
        self.url, self._address = shown_address(url), url
        self._key_env, self._timeout = key_env, timeout
        self._client = self._open(asynchronous=True)
        self.model, self.longest = self._find(model)

    def _open(self, **options: Any) -> Any:
        return open_client(self._library, self._address, self._key_env, self._timeout, **options)

    def _find(self, model: str | None) -> tuple[str, int | None]:
        """The model's name and its greatest length."""
        with self._open(retries=1) as client:
            try:
                listed = getattr(client.models.list(), "data", None)
            except self._library.NotFoundError:
                listed = []  # Not every server has such a list.
            except self._library.OpenAIError as error:
                raise self.failure(error) from error
        if listed is None:
            raise self.failure("its list of models is none")
        served = {one.id: getattr(one, "max_model_len", None) for one in listed}
        names = ", ".join(served) or "none"
        # Our own server also lists its reward model, and names that stand for a policy's methods.
        rewards = {one.id for one in listed if getattr(one, "kind", None) == "reward"}
        own = [one for one in served if one not in rewards
               and one.partition("@")[0] not in served.keys() - {one}]
        if model is None and len(own) != 1:
            raise ConfigError(
                f"The server {self.url} names these models: {names}; say which one (--model; "
                "policy= of Steerer)."
            )
        name = model or own[0]
        if served and name not in served:
            raise ConfigError(
                f"The server {self.url} does not serve the model {name!r}; it names these: {names}."
            )
        return name, served.get(name)

    def abilities(self, ids: Sequence[int], text: str) -> set[str]:
        """Abilities for prompts rendered by this process, found with requests of a few tokens;
        empty if the server takes no such prompts.

        Raises:
            ConfigError: it cannot be reached, or refuses.
        """
        prompt = [*ids, *ids]
        known = {"prompt": prompt, "logprobs": 1,
                 "extra_body": {"return_token_ids": True, **NAMED_BY_ID}}
        asked: list[dict[str, Any]] = [
            known | {"echo": True}, known,
            {"prompt": text, "logprobs": 1}, {"prompt": text},
        ]
        lib = self._library
        with self._open(retries=1) as client:
            for body in asked:
                try:
                    reply = client.completions.create(model=self.model, max_tokens=1, **body)
                    choice = _choices(reply)[0]
                except (lib.BadRequestError, lib.UnprocessableEntityError):
                    continue
                except lib.NotFoundError:
                    return set()
                except lib.InternalServerError as error:
                    # Not every server knows how to echo a prompt.
                    if "echo" not in body:
                        raise self.failure(error) from error
                    continue
                except (lib.OpenAIError, LookupError) as error:
                    raise self.failure(error) from error
                found = {"extend"}
                if (choice.model_extra or {}).get("token_ids"):
                    found.add("token_ids")
                if choice.logprobs is not None and choice.logprobs.token_logprobs:
                    found.add("logprobs")
                if "token_ids" in found and likeliest(choice):
                    found.add("candidates")
                if "token_ids" in found and _echoed(choice, prompt):
                    found.add("likelihoods")
                return found
        return set()

    def count(self, text: str) -> int | None:
        """Tokens that the model reads in a text; None where the server does not say.

        Raises:
            ConfigError: it cannot be reached, or refuses.
        """
        with self._open(retries=1) as client:
            try:
                reply = client.completions.create(model=self.model, prompt=text, max_tokens=1)
            except self._library.OpenAIError as error:
                raise self.failure(error) from error
        return getattr(reply.usage, "prompt_tokens", None)

    def check_named(self, ids: Sequence[int], top: int) -> None:
        """Raise `ConfigError` unless it returns the ``top`` likeliest tokens after ``ids``."""
        lib = self._library
        with self._open(retries=1) as client:
            try:
                reply = client.completions.create(
                    model=self.model, prompt=list(ids), max_tokens=1, logprobs=top,
                    extra_body=NAMED_BY_ID,
                )
                named = len(likeliest(_choices(reply)[0]))
            except (lib.BadRequestError, lib.UnprocessableEntityError) as error:
                raise ConfigError(
                    f"The server {self.url} does not name the {top} likeliest tokens: "
                    f"{shown(error)}; lower top_k, or start it with a higher limit (vLLM: "
                    "--max-logprobs)."
                ) from error
            except (lib.OpenAIError, LookupError) as error:
                raise self.failure(error) from error
        if named < top:
            raise ConfigError(
                f"The server {self.url} names {named} of the {top} likeliest tokens; lower top_k "
                f"by {top - named}."
            )

    async def ask(
        self, body: dict[str, Any], extra: dict[str, Any], *, stream: bool
    ) -> AsyncGenerator[Any, None]:
        """The reply to a request, in pieces where it is to be streamed; closing the iterator gives
        the request up.

        Args:
            body: ``prompt`` or ``messages``.
            extra: all other fields.
            stream: whether pieces are wanted.

        Raises:
            DataError: the server refuses this request alone.
            EngineError: it cannot go on.
        """
        lib = self._library
        api = self._client.chat if "messages" in body else self._client
        if stream:
            extra = extra | {"stream_options": {"include_usage": True}}
        try:
            reply = await api.completions.create(
                model=self.model, stream=stream, extra_body=extra, **body
            )
            if not stream:
                _choices(reply)
                yield reply
                return
            async with reply as pieces:
                async for piece in pieces:
                    yield piece
        except (lib.BadRequestError, lib.UnprocessableEntityError) as error:
            raise DataError(f"The server refuses this prompt: {shown(error)}") from error
        except (lib.OpenAIError, LookupError) as error:
            raise EngineError(self.failure(error)) from error

    async def close(self) -> None:
        await self._client.close()

    def failure(self, error: Exception | str) -> ConfigError:
        """The error to raise for a failure that ends the run."""
        name = f"; the model's name is {self.model}" if getattr(self, "model", None) else ""
        return failure(
            self._library, error, url=self.url, key_env=self._key_env, timeout=self._timeout,
            address=f"it ends in /v1{name}", key_option=" (another name: key_env=, --key-env)",
            relief="lower the batch size, or go on later (--resume)",
        )


def by_id(named: Mapping[str, float] | None) -> dict[int, float]:
    """Log-probabilities by token id, of tokens that a server names ``token_id:N``; others are left
    out."""
    ids = {name.removeprefix(_NAME): value for name, value in (named or {}).items()
           if name.startswith(_NAME)}
    return {int(name): value for name, value in ids.items()}


def likeliest(choice: Any) -> dict[int, float]:
    """Log-probabilities of the likeliest last tokens of a response by id; see `by_id`."""
    known = choice.logprobs
    return by_id(known.top_logprobs[-1]) if known is not None and known.top_logprobs else {}


def _echoed(choice: Any, prompt: Sequence[int]) -> bool:
    """Whether a response of one token gives log-probabilities of its prompt's tokens, too."""
    known = choice.logprobs
    values = [] if known is None else list(known.token_logprobs or [])
    return len(values) == len(prompt) + 1 and None not in values[1:]


def tokens_read(usage: Any, otherwise: int) -> int:
    """Prompt tokens that a server processed, without cached ones; ``otherwise`` where it does not
    say."""
    if usage is None:
        return otherwise
    details = getattr(usage, "prompt_tokens_details", None)
    return int(usage.prompt_tokens) - (getattr(details, "cached_tokens", None) or 0)


def _choices(reply: Any) -> Any:
    """Raise `LookupError` where a reply holds no response."""
    choices = getattr(reply, "choices", None)
    if not choices:
        raise LookupError("an answer with status 200 that is no completion")
    return choices
