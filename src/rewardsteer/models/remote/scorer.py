"""Reward models behind an address: our server, vLLM, SGLang, or OpenRLHF's remote form."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np

from rewardsteer.addresses import (
    KEY_ENV,
    TIMEOUT,
    WORKERS,
    check_limits,
    failure,
    in_parallel,
    open_client,
    openai_library,
    shown,
    shown_address,
)
from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import paired
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.models.batching import check_batch_size
from rewardsteer.models.finite import require_finite
from rewardsteer.models.remote.checks import (
    PROBE,
    Activation,
    check_route,
    check_width,
    described,
    find_activation,
    undone,
)
from rewardsteer.models.remote.forms import FORMS, Form, Numbers, OwnForm
from rewardsteer.models.remote.rows import Rows, RowWriter, part_of
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt

T = TypeVar("T")


class RemoteScorer(TextScorer):
    """A reward model behind an address.

    Args:
        url: the server's address, such as ``http://127.0.0.1:8000``; for OpenRLHF's form the whole
            address of the route.
        api: ``rewardsteer``, ``vllm`` (``/classify``), ``vllm-pooling``, ``sglang`` or
            ``openrlhf``; ``auto`` asks the server who it is, and takes an address with a path for
            OpenRLHF's form.
        model: the model's name there; None: the only one.
        tokenizer: the reward model's, or its folder or name. With it, rows are written here and
            sent as token ids to vLLM and SGLang; without it vLLM writes them with its chat
            template. SGLang and OpenRLHF's form apply no template, so it is needed there.
        template: how rows are written here; None: as the tokenizer says.
        label: which number is the reward, where the model gives several.
        activation: the function that the server applies to rewards. ``auto`` finds it out with
            three short rows and refuses one that cannot be undone; ``sigmoid`` undoes a sigmoid;
            ``none`` takes the numbers as they are.
        fields: further fields of every request, such as ``{"task": "token_classify"}``.
        key_env: environment variable that holds the key; a server that wants none needs none.
        timeout: seconds to wait for an answer.
        concurrency: requests at a time.

    Raises:
        ConfigError: the package openai is not installed; the server cannot be reached, refuses the
            key, or says nothing about its kind; a tokenizer is needed.
        MismatchError: the server gives something else than one raw reward per row.
    """

    remote = True

    def __init__(
        self, url: str, *, api: str = "auto", model: str | None = None, tokenizer: Any = None,
        template: Template | None = None, label: int | None = None,
        activation: Activation = "auto", fields: dict[str, Any] | None = None,
        key_env: str = KEY_ENV, timeout: float = TIMEOUT, concurrency: int = WORKERS,
    ) -> None:
        if api != "auto" and api not in FORMS:
            raise ConfigError(
                f"Unknown API {api!r} of a reward server; expected auto, {', '.join(FORMS)}."
            )
        self._library = openai_library("A reward model behind an address", "openai", "load its "
                                       "folder instead")
        self.url = shown_address(url)
        check_limits(timeout, concurrency)
        parts = urlsplit(url)
        self._key_env, self._timeout, self._concurrency = key_env, timeout, concurrency
        self._api, self._model, self.activation = api, model, "none"
        self._route = parts.path.rstrip("/")
        check_route(self._route, self.url)
        root = self._route if api == "openrlhf" else self._route.removesuffix("/v1")
        self._client = open_client(
            self._library, parts._replace(path=root).geturl(), key_env, timeout
        )
        self.api, self.model = self._find(api, model)
        kind = FORMS[self.api]
        writer = None
        if tokenizer is not None or template is not None or kind.needs_writer:
            writer = RowWriter(tokenizer, template)
        self._form: Form = kind(writer, self.model)
        self._fields = dict(fields or {})
        self.label = label
        self.tokenizer = None if writer is None else writer.tokenizer
        self.template = None if writer is None else writer.template
        self.name = self.url
        self.activation = self._check(activation)

    # --- finding out about the server -------------------------------------------------------------

    def _find(self, api: str, model: str | None) -> tuple[str, str | None]:
        """The form that the server is asked in, and the model's name."""
        self.fingerprint = ""
        if api == "openrlhf" or (api == "auto" and self._route not in ("", "/v1")):
            return "openrlhf", None
        lib = self._library
        try:
            reply = self._client.with_options(max_retries=1).get("v1/models", cast_to=object)
        except lib.NotFoundError:
            reply = {}  # Not every server has such a list.
        except (lib.OpenAIError, ValueError) as error:
            raise self._failure(error) from error
        listed = reply.get("data") if isinstance(reply, dict) else None
        models = [one for one in listed or () if isinstance(one, dict)]
        if api == "auto":
            owners = {str(one.get("owned_by")) for one in models}
            known = sorted(owners & FORMS.keys())
            if not known:
                raise ConfigError(
                    f"The server {self.url} does not say what it is; pass api= with one of "
                    f"{', '.join(FORMS)}."
                )
            api = known[0]
        if api == "rewardsteer":
            own = next((one for one in models if one.get("kind") == "reward"), None)
            if models and own is None:
                raise MismatchError(
                    f"The server {self.url} holds no reward model; start it with one "
                    "(--reward-model)."
                )
            self.fingerprint = str((own or {}).get("fingerprint") or "")
            return api, model
        return api, model or (str(models[0]["id"]) if len(models) == 1 else None)

    def _check(self, wanted: Activation) -> Literal["none", "sigmoid"]:
        """What is undone, after making sure that the server gives one number per row."""
        def ask(activation: bool) -> np.ndarray:
            count = len(PROBE.prompts) if self._form.together else 1
            found = self._in_parts(len(PROBE.prompts), count, lambda part: self._numbers(
                part_of(PROBE, part), part, activation=activation
            ))
            return np.array(found)

        if wanted != "auto":
            check_width(self.url, ask(wanted == "sigmoid"), self.label)
            return wanted
        return find_activation(
            self.url, ask, asks_activation=self._form.asks_activation, label=self.label
        )

    # --- scoring ----------------------------------------------------------------------------------

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """Rewards ``[N]`` (float64) in the order given; see `TextScorer.score`.

        Args:
            prompts, completions: N each.
            batch_size: rows per request, where the server's form allows several.
            closed: the completions have ended.

        Raises:
            DataError: the server refuses a row.
            ConfigError: it cannot be reached, or fails again and again.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """
        rows = Rows(*paired(prompts, completions), closed)
        found = self._in_parts(
            len(rows.prompts), batch_size if self._form.together else 1,
            lambda part: self._rewards(rows, part),
        )
        rewards = np.array(found, dtype=np.float64)
        require_finite(rewards)
        return rewards

    def score_each(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16
    ) -> list[float | DataError]:
        """See `TextScorer.score_each`; the rows of a request that is refused are sent one by one.
        """
        rows = Rows(*paired(prompts, completions), closed=True)

        def ask(part: range) -> list[float | DataError]:
            try:
                return [*self._rewards(rows, part)]
            except DataError as error:
                if len(part) == 1:
                    return [error]
            return [one for row in part for one in ask(range(row, row + 1))]

        found = self._in_parts(
            len(rows.prompts), batch_size if self._form.together else 1, ask
        )
        require_finite(np.array([0.0 if isinstance(one, DataError) else one for one in found]))
        return found

    def step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]], *, batch_size: int = 16
    ) -> list[np.ndarray]:
        """Rewards of steps; our own server computes them in one pass, of others the prefixes are
        scored."""
        form = self._form
        if not isinstance(form, OwnForm):
            return super().step_scores(prompts, steps, batch_size=batch_size)
        found = self._in_parts(len(prompts), batch_size, lambda part: self._read(
            form.steps(prompts[part.start : part.stop], steps[part.start : part.stop]), part,
            lambda reply: [one["step_rewards"] for one in reply["data"]],
        ))
        for number, values in enumerate(found, start=1):
            require_finite(np.array(values, dtype=np.float64), tokens_of=number)
        return [np.array(values, dtype=np.float64) for values in found]

    def provenance(self) -> dict[str, Any]:
        """Address, form, template and activation."""
        return {
            "kind": "remote", "url": self.url, "api": self.api, "model": self.model,
            "template": "the server's" if self.template is None
            else self.template.model_dump(mode="json"),
            "activation": "sigmoid, undone" if self.activation == "sigmoid" else "none",
            "label": self.label, "fingerprint": self.fingerprint,
        }

    def _in_parts(
        self, count: int, size: int, ask: Callable[[range], Sequence[T]]
    ) -> list[T]:
        """Answers about N rows in their order, so many rows a request and some requests at once."""
        check_batch_size(size)
        parts = [range(at, min(at + size, count)) for at in range(0, count, size)]
        answers = in_parallel(ask, parts, self._concurrency)
        return [one for answer in answers for one in answer]

    def _rewards(self, rows: Rows, part: range) -> list[float]:
        found = self._numbers(part_of(rows, part), part)
        rewards = [row[self.label or 0] for row in found]
        return undone(rewards, part) if self.activation == "sigmoid" else rewards

    def _numbers(
        self, rows: Rows, part: range, *, activation: bool = False
    ) -> Numbers:
        if self.activation == "sigmoid":
            activation = True
        body = self._form.body(rows, activation=activation)
        return self._read(body, part, self._form.numbers)

    def _read(self, body: dict[str, Any], part: range, read: Callable[[Any], list[T]]) -> list[T]:
        """What an answer holds, one item per row.

        Raises:
            DataError: the server refuses these rows.
            ConfigError: it cannot be reached, fails again and again, or answers in another form.
        """
        lib = self._library
        # An absolute address stays what it is.
        where = self._form.path or str(self._client.base_url).rstrip("/")
        reply: Any = None
        try:
            reply = self._client.post(where, body=body | self._fields, cast_to=object)
            found = read(reply)
        except (lib.BadRequestError, lib.UnprocessableEntityError) as error:
            rows = f"Row {part.start + 1}" if len(part) == 1 else (
                f"One of the rows {part.start + 1} to {part.stop}"
            )
            raise DataError(f"{rows}: the server {self.name} refuses it: {shown(error)}") from error
        except lib.OpenAIError as error:
            raise self._failure(error) from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._failure(
                f"its answer is none of the form {self.api!r} ({described(reply)})"
            ) from error
        if len(found) != len(part):
            raise self._failure(f"it gave {len(found)} rewards for {len(part)} rows")
        return found

    def _failure(self, error: Exception | str) -> ConfigError:
        named = "" if self._model is None else f"; the model's name is {self._model}"
        return failure(
            self._library, error, url=self.url, key_env=self._key_env, timeout=self._timeout,
            address=f"for the form {self._api}{named}", key_option=" (another name: key_env=)",
            relief="lower concurrency or batch_size",
        )
