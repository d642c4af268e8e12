"""The models of a server (policy, reward model, goal states), and how requests become rows.

Texts are written, tokenized and bounded before anything is queued, exactly as `generate` and
`score` do it; so an answer over HTTP is theirs for the same seed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.crossing import shares_tokens
from rewardsteer.decoding.defaults import with_defaults
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.methods import METHODS, adds_rewards, asks_candidates
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.second_models import check_same_tokens
from rewardsteer.errors import ConfigError
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.records import Prompt
from rewardsteer.serving.config import MOST_CANDIDATES, ServingConfig
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.handles import RequestHandle, Response
from rewardsteer.serving.methods import ServedMethods
from rewardsteer.serving.reading import TextReader
from rewardsteer.serving.reward_reading import RewardReader


class ServedModels(TextReader):
    """Models with the settings that requests start from.

    Args:
        policy: a causal LM, or an engine that runs one; None: rewards alone.
        tokenizer: the policy's; None without a policy.
        scorer: a reward model; None: the policy alone.
        defaults: settings for the fields that a request leaves out.
        template: how prompts are written; default: the reward model's, else the chat template where
            the tokenizer has one, else the plain one.
        goals: goal states by name.
        name, reward_name: names of policy and reward model.
        drafter: a second policy with the policy's tokens, or an engine that runs one, for methods
            that want it.
        scout: a reward model with a vocabulary head for gates of the kind ``kl``.
        fingerprint: of the policy's weights; "" when unknown.

    Raises:
        ConfigError: neither policy nor reward model; a default method that cannot be served.
        MismatchError: the method and the reward model do not fit.

    Attributes:
        shared: the reward model reads the policy's tokens; else it reads texts.
        methods: the methods that requests can choose.
    """

    def __init__(
        self, policy: Any, tokenizer: Any, scorer: Any, defaults: DecodingConfig,
        limits: ServingConfig, *, template: Template | None = None,
        goals: Mapping[str, GoalState] | None = None, name: str = "policy",
        reward_name: str = "reward", fingerprint: str = "", drafter: Any = None,
        scout: Any = None,
    ) -> None:
        if policy is None and scorer is None:
            raise ConfigError("Expected a policy, a reward model or both; got neither.")
        engine, self.drafter = (_engine(one, tokenizer, limits) for one in (policy, drafter))
        if self.drafter is not None:
            check_same_tokens(engine, self.drafter)
        shared = engine is not None and scorer is not None and shares_tokens(tokenizer, scorer)
        # A reward model of texts renders them itself.
        written, renderer = writer_of(
            template, tokenizer, scorer if shared or engine is None else None
        )
        super().__init__(engine, scorer, limits, written, renderer, shared=shared)
        self.reward_reader = None if scorer is None else RewardReader(scorer, limits)
        self.goals = dict(goals or {})
        # Folders of different models often have the same name.
        self.name = name
        self.reward_name = reward_name if reward_name != name else f"{name}-reward"
        # Equal requests have equal answers while both stay the same.
        both = (fingerprint, getattr(scorer, "fingerprint", ""))
        self.fingerprint = "-".join(part for part in both if part)
        self.defaults = self._given = defaults
        self.methods = ServedMethods(
            engine, scorer, defaults.method, shared=shared, goals=self.goals,
            drafter=self.drafter, scout=scout,
        )
        if self.engine is not None:
            self.defaults = self._complete(defaults)
            self.methods.build(self.defaults)

    def _complete(self, config: DecodingConfig) -> DecodingConfig:
        """Settings with all defaults filled in: see `rewardsteer.decoding.defaults`."""
        assert self.engine is not None
        config = with_defaults(config, self.engine.settings)
        # The default number of candidates is at most the policy's vocabulary.
        most = self.engine.vocabulary_size
        if asks_candidates(config.method):
            most = min(most, MOST_CANDIDATES)
            return config.model_copy(update={"top_k": min(config.top_k or most, most)})
        return config.model_copy(update={"top_k": min(config.top_k, most)})

    def rename(self) -> None:
        """Give the models the names that clients know: refusals quote names, and folders and
        addresses are not for clients."""
        parts = [(self.engine and self.engine.tokenizer, self.name)]
        if self.scorer is not None:
            self.scorer.name = self.reward_name
            parts.append((self.scorer.tokenizer, self.reward_name))
        for tokenizer, name in parts:
            if tokenizer is not None:
                tokenizer.name_or_path = name

    def start_of(self, method: str | None) -> dict[str, Any]:
        """The default settings of a request with this method; None: the server's method."""
        given = self._given if method is None else self._given.model_copy(update={"method": method})
        return self._complete(given).model_dump()

    def reads_texts(self, config: DecodingConfig) -> bool:
        """Whether a reward model reads the texts of the responses, and not the policy's tokens."""
        return not self.shared and self.methods.build(config).scorer is not None

    def check_candidates(self, config: DecodingConfig) -> None:
        """Raise `ApiError` where a method would ask about too many tokens, or none."""
        if asks_candidates(config.method) and not 1 <= config.top_k <= MOST_CANDIDATES:
            raise bad_request(
                f"The method {config.method!r} asks about top_k tokens, from 1 to "
                f"{MOST_CANDIDATES}; got {config.top_k}.", "top_k",
            )

    def responses(
        self, handle: RequestHandle, prompts: Sequence[Prompt | list[int]],
        config: DecodingConfig, *, n: int, stream: bool, max_tokens: int | None,
        raw: bool = False, top: int | None = None,
        given: Sequence[Prompt | list[int]] | None = None,
    ) -> list[Response]:
        """The responses to generate: n for each prompt, prompt by prompt.

        The first response to the i-th prompt has the draws of the i-th prompt of `generate` with
        the same seed; further ones use the draws after its samples.

        Args:
            prompts: text, conversations or token ids.
            n: responses per prompt.
            stream: whether text is sent while it grows.
            max_tokens: longest response; None: what the server allows and the models can read.
            raw: prompts are tokenized without a template, and responses are all that the policy
                writes.
            top: number of likeliest tokens returned with each token; None: no log-probabilities.
            given: the prompts before rendering, for reward models that take texts; None:
                ``prompts``.

        Raises:
            ApiError: a prompt is too long or has unknown tokens.
            DataError: it encodes to nothing, or a role has no format.
            ConfigError, MismatchError: the settings do not fit.
        """
        assert self.engine is not None
        found: list[Response] = []
        template = Template(kind="text") if raw else self.template
        for number, (prompt, text) in enumerate(zip(prompts, given or prompts, strict=True)):
            ids = self.encode_raw(prompt) if raw else self.encode(prompt, str(number))  # type: ignore[arg-type]
            drafter = self.drafter if METHODS.get(config.method).wants_drafter else None
            own = config.model_copy(update={
                "max_new_tokens": self.room(ids, max_tokens, drafter)
            })
            # A row without guidance runs the policy alone, at no cost of a reward model.
            method = self.methods.build(
                own.model_copy(update={"method": "none"}) if _unguided(own) else own
            )
            guides = isinstance(method, LogitsGuide)
            encoded = Encoded(str(number), ids, template=template, given=self.as_text(text))
            for response in range(n):
                found.append(Response(
                    handle, len(found), encoded, method, own,
                    first=response * getattr(method, "samples", 1), stream=stream and guides,
                    top=top,
                ))
        return found


def _engine(policy: Any, tokenizer: Any, limits: ServingConfig) -> Engine | None:
    """The policy's engine, with the server's limits; None without a policy."""
    if policy is None:
        return None
    if not isinstance(policy, Engine):
        policy = TransformersEngine(policy, tokenizer, Bounds(limits.places))
    policy.bound(limits.cache_tokens, limits.methods_together)
    return policy


def _unguided(config: DecodingConfig) -> bool:
    """Whether a method that adds rewards has no effect, because its weights are 0."""
    if not adds_rewards(config.method):
        return False
    ends = config.weight_end in (None, 0)
    return config.weight == 0 and ends and not config.target_kl and config.policy_power == 1
