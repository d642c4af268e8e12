"""Texts for a policy as token ids: within limits, known to the models, rendered by one rule.

A prompt of ``/v1/completions`` is tokenized as it is; conversations are rendered with the server's
template. The tokenizer adds its beginning-of-text token unless the text begins with it.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from rewardsteer.data.chat import ROLES, unknown_role
from rewardsteer.data.render import render_prompt
from rewardsteer.data.template import Template
from rewardsteer.data.text_ids import bare_ids, plain_text
from rewardsteer.data.tokenize import encode_prompt, encode_prompts
from rewardsteer.decoding.prompts import encode_request
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import DataError
from rewardsteer.records import Message, Prompt
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.errors import bad_request, log_failure

T = TypeVar("T")
Rows = list[list[int]]

# The template of prompts that are tokenized as they are.
_RAW = Template(kind="text")
# Arguments of ``apply_chat_template``, which are no variables; two are fields of requests.
_NOT_VARIABLES = {"messages", *inspect.signature(
    PreTrainedTokenizerBase.apply_chat_template
).parameters} - {"add_generation_prompt", "continue_final_message"}
# The longest token is taken to have at least this many characters: tokens of single characters may
# join to longer text.
_SHORTEST = 8


class TextReader:
    """Tokenizes texts for a policy and a reward model; either may be None.

    Args:
        engine: the policy's.
        template: how conversations are written.
        renderer: the tokenizer whose chat template writes them.
        shared: the reward model reads the policy's tokens.
    """

    def __init__(
        self, engine: Any, scorer: Any, limits: ServingConfig, template: Template, renderer: Any,
        *, shared: bool,
    ) -> None:
        self.renderer, self.shared = renderer, shared
        self.engine, self.scorer, self.limits, self.template = engine, scorer, limits, template
        tokenizer = engine.tokenizer if engine is not None else scorer.tokenizer
        vocabulary = () if tokenizer is None else tokenizer.get_vocab()
        longest = max((len(token) for token in vocabulary), default=1)
        # Longer texts have too many tokens, and are refused without being tokenized.
        self.most_characters = max(longest, _SHORTEST) * limits.max_prompt_tokens

    def check_characters(self, texts: Iterable[str], param: str) -> int:
        """How many characters texts have together; raises `ApiError` where one of them is too long
        to be worth tokenizing."""
        total = 0
        for text in texts:
            total += len(text)
            if len(text) > self.most_characters:
                raise bad_request(
                    f"The text has {len(text)} characters; this server takes at most "
                    f"{self.limits.max_prompt_tokens} tokens, and no text with more than "
                    f"{self.most_characters} characters.", param, "context_length_exceeded",
                )
        return total

    def encode(
        self, prompt: Prompt | list[int], name: str = "0",
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of a prompt written with the template; ids stay as they are.

        Args:
            prompt: text, a conversation or token ids.
            name: of the prompt, for messages.
            options: further variables of the chat template.

        Raises:
            ApiError: too many, unknown to the policy, a role that the template does not know, or
                text that the tokenizer cannot write.
            DataError: the template refuses the conversation, or it encodes to nothing.
        """
        tokenizer = self.engine.tokenizer
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            return self._checked(prompt)
        request = Request(id=name, prompt=prompt)
        if not isinstance(prompt, str):
            self._check_roles(prompt)  # type: ignore[arg-type]
        if options:
            self._check_options(options)
            return self._checked(written(lambda: encode_prompt(
                render_prompt(request.prompt, self.template, self.renderer, options=options),
                self.template, tokenizer,
            )))
        return self._checked(written(
            lambda: encode_request(request, self.template, self.renderer, tokenizer)
        ))

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise `ApiError` on options that are no variables of a chat template."""
        if self.template.kind != "chat":
            raise bad_request(
                "This server writes conversations without a chat template, which alone takes "
                "chat_template_kwargs, add_generation_prompt and continue_final_message.",
                "chat_template_kwargs",
            )
        wrong = sorted(options.keys() & _NOT_VARIABLES)
        if wrong:
            raise bad_request(
                f"chat_template_kwargs sets variables of the template; {wrong[0]} is none.",
                "chat_template_kwargs",
            )

    def encode_raw(self, prompt: str | list[int], name: str = "0") -> list[int]:
        """Token ids of a prompt as it stands, without a template; raises as `encode` does."""
        tokenizer = self.engine.tokenizer
        if not isinstance(prompt, str):
            return self._checked(prompt)
        ids = written(lambda: encode_prompts([prompt], _RAW, tokenizer)[0])
        if not ids:
            # The start of a text.
            empty = Request(id=name, prompt="", prompt_ids=[])
            ids = encode_request(empty, self.template, tokenizer, tokenizer)
        return self._checked(ids)

    def encode_bare(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens added by the tokenizer."""
        tokenizer = self.engine.tokenizer
        return written(lambda: bare_ids(text, tokenizer))

    def as_text(self, prompt: Prompt | list[int]) -> Prompt:
        """A prompt for reward models that take texts; token ids are decoded."""
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            return plain_text(prompt, self.engine.tokenizer)
        return prompt  # type: ignore[return-value]

    def _checked(self, ids: Sequence[int]) -> list[int]:
        if not ids:
            raise bad_request("The prompt holds no token.", "prompt")
        size = self.engine.vocabulary_size
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise bad_request(
                f"Token ids must be from 0 to {size - 1}, got {wrong}.", "prompt"
            )
        check_length(self.limits, len(ids), "prompt")
        return list(ids)

    def _check_roles(self, messages: Sequence[Message]) -> None:
        if self.template.kind != "chat":
            return
        written = str(getattr(self.renderer, "chat_template", ""))
        number = unknown_role([{"role": message.role} for message in messages], written)
        if number is not None:
            raise bad_request(
                f"messages.{number}.role: expected one of {', '.join(ROLES)}, got "
                f"{messages[number].role!r}.",
                f"messages.{number}.role",
            )

    def room(self, ids: Sequence[int], max_tokens: int | None, drafter: Any = None) -> int:
        """Number of new tokens that a response may have, within a second policy's limit too; raises
        `ApiError` if there are too few, or if the second policy cannot read the prompt."""
        unread = next((token for token in ids if drafter and token >= drafter.readable), None)
        if unread is not None:
            raise bad_request(
                f"The second policy of this server reads token ids from 0 to "
                f"{drafter.readable - 1}; the prompt has {unread}. Use a method without one.",
                "prompt",
            )
        # For a reward model of texts, only the response that is too long fails.
        reads = self.scorer if self.shared else None
        limits = [
            getattr(one, "position_limit", None) for one in (self.engine, reads, drafter)
        ]
        longest = min((limit for limit in limits if limit is not None), default=None)
        wanted = self.limits.max_tokens if max_tokens is None else max_tokens
        if longest is None or len(ids) + wanted <= longest:
            return wanted
        if max_tokens is None and len(ids) < longest:
            return longest - len(ids)
        if max_tokens is None:
            raise bad_request(
                f"The prompt has {len(ids)} tokens, and the models read at most {longest}, so no "
                "room is left for a response; shorten it.", "prompt", "context_length_exceeded",
            )
        raise bad_request(
            f"The prompt has {len(ids)} tokens and {wanted} more are asked for; the models read at "
            f"most {longest}.", "max_tokens", "context_length_exceeded",
        )


def check_length(limits: ServingConfig, tokens: int, param: str) -> None:
    """Raise `ApiError` where a text has too many tokens."""
    if tokens > limits.max_prompt_tokens:
        raise bad_request(
            f"The text has {tokens} tokens; this server takes at most "
            f"{limits.max_prompt_tokens}.", param, "context_length_exceeded",
        )


def written(function: Callable[[], T]) -> T:
    """The result of a function that tokenizes.

    Raises:
        ApiError: the tokenizer cannot write the text.
    """
    try:
        return function()
    except Exception as error:
        # The library raises no more specific class.
        if type(error) is not Exception:
            raise
        log_failure(error)
        raise DataError("The text cannot be written with the model's tokenizer.") from error
