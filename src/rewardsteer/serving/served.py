"""What a server holds: a policy, a reward model and its goal states, and how requests become rows.

Texts are written, tokenized and bounded before anything is queued, exactly as `generate` and
`score` do it; so an answer over HTTP is theirs for the same seed.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding import generate as answers
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import with_defaults
from rewardsteer.decoding.engines.hf import HfEngine
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.guide import ResponseGuide, TokenGuide
from rewardsteer.decoding.methods import METHODS, asks_candidates
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.decoding.text import GrowingText
from rewardsteer.errors import ConfigError, DataError, RewardsteerError
from rewardsteer.goals.files import check_goal, load_goals
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.checkpoint import GOAL_STATES
from rewardsteer.models.compatibility import check_vocabularies
from rewardsteer.records import Prompt
from rewardsteer.serving.config import MOST_CANDIDATES, ServingConfig
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.reading import TextReader
from rewardsteer.serving.responses import LaneKey, Response
from rewardsteer.serving.tickets import Outbox, Ticket


class Served(TextReader):
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
            raise ConfigError("Expected a policy, a reward model or both; got neither.")
        engine = None if policy is None else HfEngine(policy, tokenizer)
        if policy is not None and scorer is not None:
            check_vocabularies(tokenizer, scorer)
        written, renderer = writer_of(template, tokenizer, scorer)
        super().__init__(engine, scorer, limits, written, renderer)
        self.goals = dict(goals or {})
        # Folders of different models are often called alike.
        self.name = name
        self.reward_name = reward_name if reward_name != name else f"{name}-reward"
        # Answers can be repeated while both stay the same.
        both = (fingerprint, getattr(scorer, "fingerprint", ""))
        self.fingerprint = "-".join(part for part in both if part)
        self.defaults = self._given = defaults
        self._methods: dict[DecodingConfig, Any] = {}
        if self.engine is not None:
            self.defaults = self._complete(defaults)
            self.method(self.defaults)

    def _complete(self, config: DecodingConfig) -> DecodingConfig:
        """Settings with nothing left open: see `rewardsteer.decoding.defaults`."""
        assert self.engine is not None
        settings = getattr(self.engine.policy, "generation_config", None)
        config = with_defaults(config, settings)
        # Candidates are of the policy's vocabulary, however many the default asks for.
        most = self.engine.vocabulary_size
        if asks_candidates(config.method):
            most = min(most, MOST_CANDIDATES)
            return config.model_copy(update={"top_k": min(config.top_k or most, most)})
        return config.model_copy(update={"top_k": min(config.top_k, most)})

    def start_of(self, method: str | None) -> dict[str, Any]:
        """The settings that a request with a method starts from; None: the server's method."""
        given = self._given if method is None else self._given.model_copy(update={"method": method})
        return self._complete(given).model_dump()

    @functools.cached_property
    def methods(self) -> list[str]:
        """Names of the methods that these models can be guided by."""
        found = []
        for name in METHODS.names():
            try:
                start = self.start_of(name) | {"mode": "sample"}
                self.method(DecodingConfig.model_validate(start))
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
            top_k=config.top_k if asks_candidates(config.method) else 0,
            batch_size=self.limits.places,
        )
        if plain not in self._methods:
            self._methods[plain] = build_method(plain, self.scorer)
        return self._methods[plain]

    def check_candidates(self, config: DecodingConfig) -> None:
        """Raise `ApiError` where a method would ask about too many tokens, or none."""
        if asks_candidates(config.method) and not 1 <= config.top_k <= MOST_CANDIDATES:
            raise bad_request(
                f"The method {config.method!r} asks about top_k tokens, from 1 to "
                f"{MOST_CANDIDATES}; got {config.top_k}.", "top_k",
            )

    def guide_of(self, key: LaneKey) -> TokenGuide:
        """A fresh guide for a lane."""
        guide = build_method(DecodingConfig(method=key[0], top_k=key[1]), self.scorer)
        assert guide.level == "token", "others guide nothing"
        return guide

    def text_of(self, row: Any, template: Template) -> str:
        """A finished row's text, without what the template puts around it."""
        assert self.engine is not None
        return answers.response_text(row, template, self.engine)

    def responses(
        self, ticket: Ticket, outbox: Outbox, prompts: Sequence[Prompt | list[int]],
        config: DecodingConfig, *, n: int, stream: bool, max_tokens: int | None, raw: bool = False,
        top: int | None = None,
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
            stream: whether text is told as it grows.
            max_tokens: longest response; None: what the server allows and the models can read.
            raw: prompts are read as they are, and responses are all that the policy writes.
            top: record log-probabilities, with so many of the likeliest tokens; None: none.

        Raises:
            ApiError: a prompt is too long or has unknown tokens.
            DataError: it encodes to nothing, or a role has no format.
            ConfigError, MismatchError: the settings do not fit.
        """
        assert self.engine is not None
        method = self.method(config)
        chooser: Any = None if method.level == "token" else method
        lane = (config.method if chooser is None else "none", 0)
        if _unguided(config):
            # Such a row is the policy's own, and need not pay for a reward model.
            lane = ("none", 0)
        elif asks_candidates(config.method):
            lane = (config.method, config.top_k)
        found: list[Response] = []
        template = Template(kind="text") if raw else self.template
        for number, prompt in enumerate(prompts):
            ids = self.encode_raw(prompt) if raw else self.encode(prompt, str(number))  # type: ignore[arg-type]
            room = self.room(ids, max_tokens)
            own = config.model_copy(update={"max_new_tokens": room})
            for sample in range(n):
                response = Response(
                    ticket, len(found), outbox, chooser, stream=stream,
                    text_of=functools.partial(self.text_of, template=template),
                )
                for draw in range(config.n if chooser else 1):
                    text = None
                    if config.stop or (stream and chooser is None):
                        text = GrowingText(
                            self.engine.tokenizer, ids, template, config.stop,
                            min_tokens=config.min_tokens,
                        )
                    draws = row_generator(config.seed, str(number), sample + draw)
                    response.add(ids, draws, own, lane, text, top)
                found.append(response)
        return found

def _unguided(config: DecodingConfig) -> bool:
    """Whether weights of 0 leave nothing of a method that adds rewards."""
    ends = config.weight_end in (None, 0)
    return config.weight == 0 and ends and not config.target_kl


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
