"""`Steerer`: a policy, a reward model and a decoding method, on any engine."""

import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from inspect import GEN_CLOSED, getgeneratorstate
from typing import TYPE_CHECKING, Any

from rewardsteer.api.inputs import as_messages, as_prompt, as_prompts, as_template
from rewardsteer.api.parts import load_policy_of, reward_models_of, scorer_of, tokenizer_of
from rewardsteer.api.reward_model import as_reward_model
from rewardsteer.api.streaming import pieces
from rewardsteer.configuration import load_config
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.default_method import WITHOUT_REWARD_MODEL, log_choice
from rewardsteer.decoding.engines.choice import HERE, EngineChoice
from rewardsteer.decoding.engines.registry import ENGINES
from rewardsteer.decoding.engines.shared import SharedEngine
from rewardsteer.decoding.fitting import check_gate
from rewardsteer.decoding.methods import (
    accepts_goal,
    needs_goal,
    takes_no_reward_model,
    wants_drafter,
)
from rewardsteer.decoding.second_models import check_draft_model
from rewardsteer.devices import AUTO
from rewardsteer.errors import ConfigError
from rewardsteer.quiet import quiet_calls
from rewardsteer.records import Generation, Prompt

if TYPE_CHECKING:
    from rewardsteer.api.inspecting import Inspected
    from rewardsteer.api.table import Table
    from rewardsteer.decoding.answer import Watch
    from rewardsteer.decoding.requests import Request
    from rewardsteer.goals.goal_state import GoalState


@quiet_calls
class Steerer:
    """Generates with a policy under a reward model.

        steerer = Steerer("Qwen/Qwen3-1.7B", rm, method="best_of_n", n=8)
        steerer.generate(["What is 2+2?"], max_new_tokens=128)[0].text

    Args:
        policy: a folder, a name on the hub, or a loaded causal language model; for the engine
            ``openai`` the model's name at the address.
        reward_model: a `RewardModel`, or a folder or name to load one from; several for methods
            that add up rewards; None for methods without one.
        method: name of the decoding method, or ``package.module:Class``; None: the one that the
            reward model was trained for, or ``none`` without one; logs the reason (level INFO).
        engine: ``transformers``, ``vllm`` or ``openai``.
        tokenizer: of the policy; needed with a loaded model, and with the engine ``openai`` by
            methods that extend responses.
        goal: a goal state for methods that use one; None: the reward model's own.
        template: how prompts are written, see `RewardModel.from_pretrained`; None: the reward
            model's, else the chat template.
        device, dtype: of the policy, see `RewardModel.from_pretrained`.
        base_url: address of the engine ``openai``, ending in ``/v1``.
        engine_options: of the engine ``vllm`` its engine arguments (``gpu_memory_utilization``, …),
            of ``openai`` the name of the environment variable with the key (``key_env``).
        reward_weights: one for each of several reward models.
        gate_model: a reward model with a vocabulary head with which the gate ``kl`` decides which
            tokens are guided, given like ``reward_model``; None: the reward model itself.
        draft_model: a smaller policy with the same vocabulary, for methods that draft (``rsd``,
            ``gsi``): a folder, a name on the hub, or a loaded model. For the engine ``openai``
            another model's name at the address.
        settings: of `SteeringConfig`: ``n``, ``weight``, ``temperature``, ``max_new_tokens``, …

    Raises:
        CheckpointError: a model does not exist.
        ConfigError: unknown method, engine or setting.
        MismatchError: the reward model does not fit the method.
    """

    def __init__(
        self, policy: Any, reward_model: Any = None, method: str | None = None, *,
        engine: str = "transformers", tokenizer: Any = None, goal: "GoalState | None" = None,
        template: Any = None, device: str = AUTO, dtype: Any = "auto",
        base_url: str | None = None, reward_weights: Sequence[float] | None = None,
        gate_model: Any = None, draft_model: Any = None,
        engine_options: Mapping[str, Any] | None = None, **settings: Any,
    ) -> None:
        ENGINES.check(engine)
        if (engine == "openai") != (base_url is not None):
            raise ConfigError("The engine 'openai' and a base_url go together; give both or none.")
        if engine_options and engine == HERE:
            raise ConfigError(
                f"engine_options are for the engines vllm and openai, got the engine {HERE!r}; "
                "leave them out."
            )
        self.reward_models = reward_models_of(reward_model)
        if method is None:
            method = (
                self.reward_models[0].default_method() if self.reward_models
                else log_choice(WITHOUT_REWARD_MODEL)
            )
        if self.reward_models and takes_no_reward_model(method):
            raise ConfigError(f"The method {method!r} uses no reward model; leave it out.")
        self.config = load_config(DecodingConfig, {"method": method, **settings})
        self.engine, self.template, self.base_url = engine, as_template(template), base_url
        self._goal, self._own_goal = goal, goal
        self._weights, self._device, self._dtype = reward_weights, device, dtype
        self._engine_options = dict(engine_options or {})
        self._scout = None if gate_model is None else as_reward_model(gate_model).scorer
        if engine != "transformers" and self._scout is not None:
            raise ConfigError("A gate_model is for the engine 'transformers'; leave it out.")
        check_gate(self.config, self._scout)
        self._method(self.config)
        self.tokenizer = tokenizer_of(policy, engine, tokenizer)
        check_draft_model(self.config, draft_model, engine, self.tokenizer)
        self.policy = load_policy_of(policy, engine, device, dtype)
        self._drafter = load_policy_of(draft_model, engine, device, dtype)
        # Prompts of later calls may be longer than those of the first.
        self._shared = SharedEngine(self.choice, longest=None)
        self._answers: weakref.ref[Generator[Generation, None, None]] | None = None

    def close(self) -> None:
        """Stop vLLM, which goes on running between calls, and free its memory; the next call starts
        it again. Nothing for other engines. A ``with`` block does the same at its end."""
        self._shared.close()

    def __enter__(self) -> "Steerer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        models = ", ".join(repr(one.scorer.name) for one in self.reward_models) or "none"
        return f"Steerer(method={self.config.method!r}, reward_model={models}, {self.engine})"

    def generate(self, prompts: Any, **settings: Any) -> list[Generation]:
        """Answers to prompts, in their order.

        Args:
            prompts: texts or conversations, or one of them.
            settings: changed for this call.

        Returns:
            one `Generation` per prompt: ``text``, ``reward``, ``cost``, ``token_ids``,
            ``finish_reason``, and ``error`` where a prompt could not be answered.
        """
        return list(self.iterate(prompts, **settings))

    def iterate(self, prompts: Any, **settings: Any) -> Generator[Generation, None, None]:
        """As `generate`, but yields each answer once it and all answers before it are done."""
        from rewardsteer.decoding.requests import as_requests

        config = self._settings(settings)
        return self._run(as_requests(as_prompts(prompts)), config)

    def chat(self, messages: Sequence[Any], **settings: Any) -> Generation:
        """The answer to a conversation.

        Raises:
            RewardsteerError: the conversation cannot be answered.
        """
        return self._one(as_messages(messages), settings)

    def stream(self, prompt: Any, **settings: Any) -> Iterator[str]:
        """Stream the answer to one prompt in pieces, where the method samples one response. Methods
        that choose among several responses yield the whole answer at once.

        Raises:
            RewardsteerError: the prompt cannot be answered.
        """
        from rewardsteer.decoding.guides.base import LogitsGuide
        from rewardsteer.decoding.requests import as_requests

        config = self._settings(settings)
        if self.engine != "transformers" or not isinstance(self._method(config), LogitsGuide):
            yield self._one(as_prompt(prompt), settings).text
            return
        requests = as_requests([as_prompt(prompt)])
        yield from pieces(lambda watch: self._run(requests, config, watch))

    def compare(self, prompts: Any, methods: Any, **options: Any) -> "Table":
        """Compare methods on the same prompts; see `rewardsteer.api.evaluation.compare`."""
        from rewardsteer.api.evaluation import compare

        return compare(self, prompts, methods, **options)

    def inspect(self, prompt: Any, completion: Any = None) -> "Inspected":
        """A completion token by token: rewards, and the preferences of policy, reward model, both.

        Args:
            prompt: a text or conversation.
            completion: None: the method generates one.

        Raises:
            ConfigError: another engine than transformers, or no reward model.
            DataError, MismatchError, NonFiniteError: see
                `rewardsteer.evaluation.inspection.inspect_completion`.
        """
        from rewardsteer.api.inspecting import inspect_guided

        return inspect_guided(self, prompt, completion)

    def parts_for(self, config: DecodingConfig) -> tuple[Any, "GoalState | None"]:
        """The reward model and the goal state for a method of a comparison."""
        if takes_no_reward_model(config.method):
            return None, None
        goal = self._goal if accepts_goal(config.method) else None
        if needs_goal(config) and goal is None and self.reward_models:
            goal = self._own_goal = self._own_goal or self.reward_models[0].goal_state()
        return scorer_of(self.reward_models, self._weights, config), goal

    def scout_for(self, config: DecodingConfig) -> Any:
        """The gate's reward model, for a method with such a gate."""
        return self._scout if config.gate == "kl" else None

    @property
    def choice(self) -> EngineChoice:
        """The engine, with its options."""
        source = getattr(self.tokenizer, "name_or_path", None)
        options: dict[str, Any] = {"policy": self.policy}
        if self.engine == HERE:
            options |= {"device": self._device, "dtype": self._dtype}
        elif self.engine == "vllm":
            source, options = self.policy, {"device": self._device, "dtype": self._dtype}
        elif self.engine == "openai":
            options = {"url": self.base_url, "model": self.policy}
        return EngineChoice(
            self.engine, source, options | self._engine_options, given_tokenizer=self.tokenizer
        )

    def drafter_for(self, config: DecodingConfig) -> Any:
        """The second policy, for a method that needs one."""
        return self._drafter if wants_drafter(config.method) else None

    def _one(self, prompt: Prompt, settings: dict[str, Any]) -> Generation:
        from rewardsteer.decoding.generate import require_answers
        from rewardsteer.decoding.requests import as_requests

        results = self._run(as_requests([prompt]), self._settings(settings))
        [answer] = require_answers(results)
        return answer

    def _settings(self, changed: dict[str, Any]) -> DecodingConfig:
        if not changed:
            return self.config
        given = self.config.model_dump(include=self.config.model_fields_set)
        return load_config(DecodingConfig, given | changed)

    def _method(self, config: DecodingConfig) -> Any:
        from rewardsteer.decoding.generate import build_method

        return build_method(config, *self.parts_for(config), scout=self.scout_for(config))

    def _run(
        self, requests: "list[Request]", config: DecodingConfig, watch: "Watch | None" = None
    ) -> Generator[Generation, None, None]:
        from rewardsteer.decoding.generate import generate_by

        self._check_idle()
        method, drafter = self._method(config), self.drafter_for(config)
        self._shared.turn_to(method, drafter, self.config.batch_size)
        answers = generate_by(
            self._shared.open(method, config, drafter), requests, method, config,
            template=self.template, watch=watch,
        )
        self._answers = weakref.ref(answers)
        return answers

    def _check_idle(self) -> None:
        """Raise `ConfigError` while vLLM, which answers one call at a time, answers another."""
        last = None if self._answers is None else self._answers()
        if self.engine == "vllm" and last and getgeneratorstate(last) != GEN_CLOSED:
            raise ConfigError(
                "vLLM still answers an earlier call of this Steerer; read all its answers first, "
                "or close its generator."
            )
