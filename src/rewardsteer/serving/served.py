"""What a server holds: a policy, a reward model and its goal states, and how requests become rows.

Texts are written, tokenized and bounded here, before anything is queued, exactly as `generate` and
`score` do it; so an answer over HTTP is theirs for the same seed.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding import generate as answers
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.hf import HfEngine
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.guide import ResponseGuide, TokenGuide
from rewardsteer.decoding.methods import METHODS
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.errors import ConfigError, DataError, RewardsteerError
from rewardsteer.goals.files import check_goal, load_goals
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.checkpoint import GOAL_STATES
from rewardsteer.models.compatibility import check_vocabularies
from rewardsteer.records import Prompt
from rewardsteer.serving.config import MOST_CANDIDATES, ServingConfig
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.responses import LaneKey, Response
from rewardsteer.serving.text import GrowingText
from rewardsteer.serving.tickets import Outbox, Ticket

# Their guides ask about the policy's top_k best tokens.
_CANDIDATES = ("args", "pargs", "cd")


class Served:
    """Models with the settings that requests start from.

    Args:
        policy: a causal LM; None: rewards alone.
        tokenizer: the policy's; None without one.
        scorer: a reward model; None: the policy alone.
        defaults: settings of requests that say nothing else.
        limits: of the server.
        template: how prompts are written; default: the reward model's, else the chat template where
            the tokenizer has one, else the plain one.
        goals: goal states by name.
        name, reward_name: what the two are called.
        fingerprint: of the policy's weights; "" when unknown.

    Raises:
        ConfigError: neither policy nor reward model; a default method that cannot be served.
        MismatchError: the two tokenizers differ, or the method and the reward model do not fit.
    """

    def __init__(
        self, policy: Any, tokenizer: Any, scorer: Any, defaults: DecodingConfig,
        limits: ServingConfig, *, template: Template | None = None,
        goals: Mapping[str, GoalState] | None = None, name: str = "policy",
        reward_name: str = "reward", fingerprint: str = "",
    ) -> None:
        if policy is None and scorer is None:
            raise ConfigError("Expected a policy, a reward model or both; pass --model or "
                              "--reward-model.")
        self.engine = None if policy is None else HfEngine(policy, tokenizer)
        self.scorer, self.limits = scorer, limits
        self.goals = dict(goals or {})
        # Folders of different models are often called alike.
        self.name = name
        self.reward_name = reward_name if reward_name != name else f"{name}-reward"
        # Answers can be repeated while both stay the same.
        both = (fingerprint, getattr(scorer, "fingerprint", ""))
        self.fingerprint = "-".join(part for part in both if part)
        if policy is not None and scorer is not None:
            check_vocabularies(tokenizer, scorer)
        self.template, self._renderer = writer_of(template, tokenizer, scorer)
        self.defaults = defaults
        self._methods: dict[DecodingConfig, Any] = {}
        if self.engine is not None:
            # Candidates are of the policy's vocabulary, however many the default asks for.
            most = min(self.engine.vocabulary_size, MOST_CANDIDATES)
            self.defaults = defaults.model_copy(update={"top_k": min(defaults.top_k, most)})
            self.method(self.defaults)

    @functools.cached_property
    def methods(self) -> list[str]:
        """Names of the methods that these models can be guided by."""
        found = []
        for name in METHODS.names():
            try:
                self.method(self.defaults.model_copy(update={"method": name, "mode": "sample"}))
            except RewardsteerError:
                continue
            found.append(name)
        return found

    def method(self, config: DecodingConfig) -> TokenGuide | ResponseGuide:
        """The method of some settings.

        Raises:
            ConfigError: unknown, or one that does not go token by token or choose in the end.
            MismatchError: it does not fit the reward model.
        """
        kind = METHODS.get(config.method)
        if kind.level not in ("token", "response"):
            raise ConfigError(
                f"The method {config.method!r} is not served, because it cannot share a batch; use "
                "'rewardsteer generate'."
            )
        # All that a method looks at when it is made, for weights come with the rows. Kept, because
        # some warn when they are made.
        chooses = kind.level == "response"
        plain = DecodingConfig(
            method=config.method, mode=config.mode, n=config.n if chooses else 1,
            top_k=config.top_k if config.method in _CANDIDATES else 0,
            batch_size=self.limits.places,
        )
        if plain not in self._methods:
            self._methods[plain] = build_method(plain, self.scorer)
        return self._methods[plain]

    def check_candidates(self, config: DecodingConfig) -> None:
        """Raise `ApiError` where a method would ask about too many tokens, or none."""
        if config.method in _CANDIDATES and not 1 <= config.top_k <= MOST_CANDIDATES:
            raise bad_request(
                f"The method {config.method!r} asks about top_k tokens, from 1 to "
                f"{MOST_CANDIDATES}; got {config.top_k}.", "top_k",
            )

    def guide_of(self, key: LaneKey) -> TokenGuide:
        """A fresh guide for a lane."""
        guide = build_method(DecodingConfig(method=key[0], top_k=key[1]), self.scorer)
        assert guide.level == "token", "others guide nothing"
        return guide

    def text_of(self, row: Any) -> str:
        """A finished row's text."""
        assert self.engine is not None
        return answers.response_text(row, self.template, self.engine)

    def responses(
        self, ticket: Ticket, outbox: Outbox, prompts: Sequence[Prompt | list[int]],
        config: DecodingConfig, *, n: int, stops: Sequence[str], stream: bool,
        max_tokens: int | None,
    ) -> list[Response]:
        """The responses to make: n of each prompt, prompt by prompt.

        The i-th prompt draws what the i-th prompt of `generate` draws with that seed, its first
        response that is; a further one draws what best_of_n's next sample would.

        Args:
            ticket: of the request.
            outbox: where they are told.
            prompts: text, conversations or token ids.
            config: settings of all.
            n: of each prompt; with best_of_n, ``config.n`` are drawn for the one that is kept.
            stops: strings that end a response.
            stream: whether text is told as it grows.
            max_tokens: longest response; None: what the server allows and the models can read.

        Raises:
            ApiError: a prompt is too long or has unknown tokens.
            DataError: it encodes to nothing, or a role has no format.
            ConfigError, MismatchError: the settings do not fit.
        """
        assert self.engine is not None
        method = self.method(config)
        chooser: Any = None if method.level == "token" else method
        lane = (config.method if chooser is None else "none", 0)
        if config.method in _CANDIDATES:
            lane = (config.method, config.top_k)
        found: list[Response] = []
        for number, prompt in enumerate(prompts):
            ids = self.encode(prompt, str(number))
            room = self._room(ids, max_tokens)
            own = config.model_copy(update={"max_new_tokens": room})
            for sample in range(n):
                response = Response(ticket, len(found), outbox, chooser, stream=stream)
                for draw in range(config.n if chooser else 1):
                    text = None
                    if stops or (stream and chooser is None):
                        text = GrowingText(self.engine.tokenizer, ids, self.template, stops)
                    draws = row_generator(config.seed, str(number), sample + draw)
                    response.add(ids, draws, own, lane, text)
                found.append(response)
        return found

    def encode(self, prompt: Prompt | list[int], name: str) -> list[int]:
        """Token ids of a prompt; raises `ApiError` where they are too many or unknown."""
        assert self.engine is not None
        tokenizer = self.engine.tokenizer
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            request = Request(id=name, prompt="", prompt_ids=prompt)
        else:
            request = Request(id=name, prompt=prompt)
        ids = answers.encode_request(request, self.template, self._renderer, tokenizer)
        if max(ids) >= self.engine.vocabulary_size or min(ids) < 0:
            raise bad_request(
                f"Token ids must be from 0 to {self.engine.vocabulary_size - 1}, got "
                f"{max(ids) if min(ids) >= 0 else min(ids)}.", "prompt",
            )
        self._check_length(len(ids), "prompt")
        return ids

    def encode_completions(
        self, prompts: Sequence[Prompt], completions: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts and completions as the reward model was trained to read them."""
        prompt_ids, response_ids = self.scorer.encode(prompts, completions)
        self._check_rows(prompt_ids, response_ids)
        return prompt_ids, response_ids

    def encode_written(
        self, texts: Sequence[str], prompts: Sequence[str] | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts with completions that are written out already, closed by end-of-text
        where the template says so; paddings and end-of-text around them do not matter."""
        tokenizer, prompt_ids, response_ids = self.scorer.tokenizer, [], []
        for index, text in enumerate(texts):
            ids = self._stripped(tokenizer(text, add_special_tokens=False)["input_ids"])
            before: list[int] = []
            if prompts is not None and text.startswith(prompts[index]):
                before = tokenizer(prompts[index], add_special_tokens=False)["input_ids"]
            if ids[: len(before)] != before or len(ids) == len(before):
                before = []
            prompt_ids.append(list(before))
            response_ids.append(self.scorer.close_response(ids[len(before) :]))
        self._check_rows(prompt_ids, response_ids)
        return prompt_ids, response_ids

    def _stripped(self, ids: Sequence[int]) -> list[int]:
        """Without paddings at either end and end-of-text at the end."""
        tokenizer, ids = self.scorer.tokenizer, list(ids)
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        while ids and ids[-1] in (pad, end):
            ids.pop()
        begin = 0
        while begin < len(ids) and pad != end and ids[begin] == pad:
            begin += 1
        return ids[begin:]

    def _check_rows(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]
    ) -> None:
        limit = self.scorer.position_limit
        for row, (prompt, response) in enumerate(zip(prompt_ids, response_ids, strict=True)):
            length = len(prompt) + len(response)
            if not response:
                raise bad_request(f"Completion {row} holds no token to score.", "input")
            self._check_length(length, "input")
            if limit is not None and length > limit:
                raise bad_request(
                    f"Completion {row} has {length} tokens with its prompt; the reward model reads "
                    f"at most {limit}.", "input", "context_length_exceeded",
                )

    def _check_length(self, tokens: int, param: str) -> None:
        if tokens > self.limits.max_prompt_tokens:
            raise bad_request(
                f"The text has {tokens} tokens; this server takes at most "
                f"{self.limits.max_prompt_tokens}.", param, "context_length_exceeded",
            )

    def _room(self, ids: Sequence[int], max_tokens: int | None) -> int:
        """New tokens that a response may have."""
        assert self.engine is not None
        limits = [self.engine.position_limit, getattr(self.scorer, "position_limit", None)]
        longest = min((limit for limit in limits if limit is not None), default=None)
        wanted = self.limits.max_tokens if max_tokens is None else max_tokens
        if longest is None or len(ids) + wanted <= longest:
            return wanted
        if max_tokens is None and len(ids) < longest:
            return longest - len(ids)
        raise bad_request(
            f"The prompt has {len(ids)} tokens and {wanted} more are asked for; the models read at "
            f"most {longest}.", "max_tokens", "context_length_exceeded",
        )


def goals_of(folder: Path, scorer: Any) -> dict[str, GoalState]:
    """The goal states beside a reward model's weights, by name; none where there are none.

    Raises:
        DataError: they are damaged.
        MismatchError: they are of other weights.
    """
    if not (folder / GOAL_STATES).exists():
        return {}
    goals = load_goals(folder)
    for goal in goals.values():
        check_goal(goal, scorer)
    return goals


def goal_named(goals: Mapping[str, GoalState], name: str) -> GoalState:
    """A goal state; raises `DataError` naming those that there are."""
    if name not in goals:
        known = ", ".join(sorted(goals)) or "none"
        raise DataError(f"There is no goal state {name!r}; this server has: {known}.")
    return goals[name]


def natural_method(head: str, objective: str) -> str:
    """The method that a reward model was trained for.

    Args:
        head: ``scalar`` or ``vocabulary``.
        objective: what it was trained on.
    """
    parts = objective.split("+")
    if head == "vocabulary":
        return "genarm" if "autoregressive" in parts else "farma"
    return "pargs" if "partial" in parts else "args"
