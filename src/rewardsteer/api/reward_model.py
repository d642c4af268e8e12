"""`RewardModel`: load any reward model, score texts, rank, and steer generation with it."""

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rewardsteer.addresses import is_address
from rewardsteer.api import inputs
from rewardsteer.api.results import Ranked, TokenScores
from rewardsteer.data.sources.files import kind_of
from rewardsteer.devices import AUTO, parse_dtype
from rewardsteer.errors import ConfigError
from rewardsteer.models.aggregation import aggregation
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.loaded import scorer_of
from rewardsteer.models.pair_scorer import require_pairs
from rewardsteer.models.published import save_scorer
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer, require_tokens, score_with_tools
from rewardsteer.outputs import check_folder
from rewardsteer.quiet import quiet_calls

if TYPE_CHECKING:
    from rewardsteer.api.inspecting import Inspected
    from rewardsteer.decoding.processor import GuideProcessor
    from rewardsteer.doctor.findings import Diagnosis
    from rewardsteer.goals.goal_state import GoalState
    from rewardsteer.integrations.trl import RewardFunction


@quiet_calls
class RewardModel:
    """A reward model with its tokenizer and template; `from_pretrained` loads one (``scorer``)."""

    def __init__(self, scorer: TextScorer) -> None:
        if not isinstance(scorer, TextScorer):
            raise ConfigError(
                f"Expected a loaded scorer, got {kind_of(scorer)}; RewardModel.from_pretrained "
                "loads a reward model by its folder or name."
            )
        self.scorer = scorer

    def __repr__(self) -> str:
        if not isinstance(self.scorer, Scorer):
            return f"RewardModel({self.scorer.name!r}, kind={self.scorer.kind!r})"
        trained = self.scorer.objective or "unknown training"
        return (
            f"RewardModel({self.scorer.name!r}, head={self.scorer.head_kind!r}, {trained}, "
            f"device={self.scorer.reward_model.device})"
        )

    @classmethod
    def from_pretrained(
        cls, name_or_path: Any, *, tokenizer: Any = None, device: str = AUTO, dtype: Any = "auto",
        template: Any = None, revision: str | None = None, kind: str | None = None,
        trust_remote_code: bool = False, **options: Any,
    ) -> "RewardModel":
        """Load a reward model.

        Args:
            name_or_path: a folder, a name on the hub, another input of the kind (an address), or a
                sequence classifier with one label loaded by transformers.
            tokenizer: of a loaded classifier, or of a reward model behind an address.
            device: ``auto`` (CUDA, else MPS, else CPU), or the name of a torch device.
            dtype: of the weights: ``auto`` keeps the saved one; a name (``bfloat16``) or a
                ``torch.dtype``. Rewards are computed in float32.
            template: how prompts and responses are written, as a mapping of settings or a
                `rewardsteer.data.template.Template`; None: the checkpoint's, else the chat
                template.
            revision: branch, tag or commit on the hub.
            kind: see docs/reward_models.md; None: detected from the folder.
            trust_remote_code: allow Python code from the folder to run.
            options: ``subfolder``; of the kind; else of transformers' ``from_pretrained``.

        Raises:
            CheckpointError: no such model, or not a reward model. ConfigError: no such device, …
        """
        template = inputs.as_template(template)
        if not isinstance(name_or_path, str | Path):
            given = {"revision": revision, "kind": kind} | options
            return cls(scorer_of(name_or_path, tokenizer, template, **given))
        if tokenizer is not None:
            if kind != "remote" and not is_address(name_or_path):
                raise ConfigError("The tokenizer of a folder is its own; leave tokenizer= out.")
            options["tokenizer"] = tokenizer
        return cls(load_scorer(
            name_or_path, kind=kind, device=device, dtype=parse_dtype(dtype), template=template,
            revision=revision, trust_remote_code=trust_remote_code, pairs=True, **options,
        ))

    def score(
        self, prompts: Any, completions: Any = None, *, tools: Any = None, batch_size: int = 16
    ) -> float | np.ndarray:
        """Rewards of completions.

            rm.score("What is 2+2?", "4")                  # a float
            rm.score("What is 2+2?", ["4", "5"])           # [2]
            rm.score(prompts, completions)                 # [N], in the order given
            rm.score(messages)                             # a conversation; its last turn is scored

        Args:
            prompts: a text, a conversation, or a list of these; without completions, conversations
                that end with the assistant's turn, or a dataset with the columns ``prompt`` and
                ``completion``, and optionally ``tools``.
            completions: only the responses: texts, or lists of messages that end with the
                assistant's (messages before it become part of the prompt).
            tools: functions that the chat template lists, as JSON schemas: one list for all rows,
                or a list with such a list or None per row.
            batch_size: rows scored together; results do not depend on it beyond rounding.

        Returns:
            a float for one text, else ``[N]`` float64.

        Raises:
            DataError: another form of input, or a text that is too long.
            MismatchError: tools are given, and the model only scores texts.
            NonFiniteError: a reward is NaN or infinite.
        """
        texts = inputs.as_texts(prompts, completions)
        if not texts.completions:
            return np.empty(0)
        listed = inputs.as_tools(tools, prompts, len(texts.prompts))
        rewards = score_with_tools(
            self.scorer, texts.prompts, texts.completions, listed, batch_size=batch_size
        )
        return float(rewards[0]) if texts.single else rewards

    def attributes(
        self, prompts: Any, completions: Any = None, *, batch_size: int = 16
    ) -> dict[str, Any]:
        """The attributes that the reward combines, by name; arguments and shapes as in `score`. A
        reward model without attributes raises `MismatchError`."""
        texts = inputs.as_texts(prompts, completions)
        found = self.scorer.attributes(texts.prompts, texts.completions, batch_size=batch_size)
        return {name: float(own[0]) if texts.single else own for name, own in found.items()}

    def rank(
        self, prompt: Any, completions: Sequence[Any], *, tools: Any = None, batch_size: int = 16
    ) -> list[Ranked]:
        """Completions of one prompt, best first; equal rewards keep their order."""
        given = [completions] if inputs.is_one(completions) else inputs.listed(completions)
        if not given:
            return []
        asked = inputs.as_prompt(prompt)
        rewards = np.atleast_1d(self.score(asked, given, tools=tools, batch_size=batch_size))
        order = np.argsort(-rewards, kind="stable")
        return [Ranked(int(one), float(rewards[one]), given[one]) for one in order]

    def preference(
        self, prompts: Any, first: Any, second: Any, *, batch_size: int = 16
    ) -> float | np.ndarray:
        """The probability that the first of two responses is better, by a pairwise model; arguments
        and shapes as in `score`. A pointwise reward model raises `MismatchError`."""
        ours, theirs = inputs.as_two(prompts, first, second)
        found = require_pairs(self.scorer).preferences(
            ours.prompts, ours.completions, theirs, batch_size=batch_size
        )
        return float(found[0]) if ours.single else found

    def step_scores(
        self, prompts: Any, steps: Any, *, aggregate: str | None = None, batch_size: int = 16
    ) -> Any:
        """One value per step, ``[S]`` for one prompt with its list of steps, else a list of arrays.

        A process reward model gives its step scores; for any other model the value of a step is the
        reward of the response up to it. ``aggregate`` (``min``, ``last``, ``product`` or ``mean``)
        combines the steps to one number. Raises `DataError` for another form of input.
        """
        combine, (known, lists, single) = aggregation(aggregate), inputs.as_steps(prompts, steps)
        found = combine(self.scorer.step_scores(known, lists, batch_size=batch_size))
        return found[0] if single else found

    def token_scores(
        self, prompt: Any, completion: Any = None, *, goal: "GoalState | None" = None
    ) -> TokenScores:
        """Rewards of every prefix of a completion and, with a goal state, similarities to it.
        Rewards of prefixes mean little for a model that was trained only on whole responses."""
        from rewardsteer.api.inspecting import token_scores

        return token_scores(self.scorer, prompt, completion, goal)

    def inspect(
        self, prompt: Any, completion: Any = None, *, goal: "GoalState | None" = None
    ) -> "Inspected":
        """The rewards of a completion token by token: inline in a notebook, or a page by ``save``.
        `Steerer.inspect` adds the tokens that the policy and guidance prefer."""
        from rewardsteer.api.inspecting import inspect

        return inspect(self.scorer, prompt, completion, goal)

    def goal_state(self, name: str | None = None) -> "GoalState":
        """A goal state saved with the model (by ``rewardsteer goal-state``); without a name the
        only one, or the one named ``preferred``. Raises `DataError` where there is none."""
        from rewardsteer.goals.files import load_goal

        return load_goal(Path(self.scorer.name), name)

    def logits_processor(
        self, weight: float = 1.0, *, method: str | None = None,
        pad_token_id: int | Collection[int] | None = None, attention_mask: Any = None,
        **settings: Any,
    ) -> "GuideProcessor":
        """Guidance inside transformers' own ``generate``.

            policy.generate(**inputs, logits_processor=[rm.logits_processor(weight=1.0)])

        Args:
            weight: of the rewards.
            method: one that guides token by token; None: the one that the model was trained for.
            pad_token_id: padding of the prompts; None: the tokenizer's padding and end-of-text.
            attention_mask: of the prompts; needed if the padding token is also beginning-of-text.
            settings: of `SteeringConfig` (``top_k`` for candidate methods, …).

        Raises:
            ConfigError: the method does not guide token by token, or the padding is unknown; in
                ``generate``, prompts look padded with another token.
            MismatchError: the reward model does not fit the method.
        """
        from rewardsteer.decoding.processor import GuideProcessor, padding_of

        if pad_token_id is None and attention_mask is None:
            pad_token_id = padding_of(require_tokens(self.scorer, "a logits processor").tokenizer)
        return GuideProcessor(
            self.guide(method, weight=weight, **settings), pad_token_id=pad_token_id,
            attention_mask=attention_mask,
        )

    def default_method(self) -> str:
        """Name of the decoding method that the model was trained for; the reason is logged."""
        from rewardsteer.decoding.default_method import log_choice, method_of

        return log_choice(method_of(self.scorer))

    def guide(self, method: str | None = None, **settings: Any) -> Any:
        """A decoding method with this model, as `Steerer` builds it."""
        from rewardsteer.configuration import load_config
        from rewardsteer.decoding.config import DecodingConfig
        from rewardsteer.decoding.generate import build_method
        from rewardsteer.decoding.methods import wants_goal

        name = method or self.default_method()
        config = load_config(DecodingConfig, {"method": name, **settings})
        return build_method(config, self.scorer, self.goal_state() if wants_goal(name) else None)

    def reward_function(
        self, *, name: str = "rewardsteer", batch_size: int = 64
    ) -> "RewardFunction":
        """The model as a reward function for TRL's ``GRPOTrainer`` and ``RLOOTrainer``."""
        from rewardsteer.integrations.trl import RewardFunction
        return RewardFunction(self.scorer, batch_size=batch_size, name=name)

    def doctor(
        self, *, texts: str | Path | None = None, url: str | None = None, api: str = "auto",
        served_model: str | None = None,
    ) -> "Diagnosis":
        """Show how the model tokenizes a text, and check that other programs give equal rewards.

            print(rm.doctor())
            assert rm.doctor(url="http://127.0.0.1:8000").healthy

        Arguments and errors are those of `rewardsteer.doctor.examination.examine`.
        """
        from rewardsteer.doctor.examination import examine

        return examine(
            self.scorer.name, scorer=self.scorer, texts=texts, url=url, api=api,
            served_model=served_model,
        )

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write an ordinary Hugging Face folder with the tokenizer and ``rewardsteer.json``;
        ``overwrite`` replaces a folder with all that it holds.

        Raises:
            MismatchError: the reward model only scores texts.
            OutputError: the folder is not empty, or cannot be made.
        """
        scorer, place = require_tokens(self.scorer, "saving its weights"), Path(folder)
        check_folder(place, overwrite=overwrite)
        save_scorer(scorer, place)
        return place

    def push_to_hub(self, repository: str, *, public: bool = False) -> str:
        """Publish the model's folder on the Hugging Face hub and return its address; one that was
        given in memory is saved for it. Errors are those of `rewardsteer.integrations.hub.push`.
        """
        from rewardsteer.integrations.hub import push

        if self.scorer.fingerprint:
            return push(Path(self.scorer.name), repository, public=public)
        with tempfile.TemporaryDirectory() as folder:
            return push(self.save_pretrained(folder), repository, public=public)


def as_reward_model(model: RewardModel | str | Path) -> RewardModel:
    """The model itself, or the one loaded from a folder or name."""
    return model if isinstance(model, RewardModel) else RewardModel.from_pretrained(model)
