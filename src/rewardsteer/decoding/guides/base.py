"""The base of logits guides: methods that act inside an engine, on next-token scores.

    scores = policy logits + pull(rewards, w), w · rewards for most

A guide declares what it asks of the reward model, and how rewards change the scores. It knows no
engine: any code with logits and rewards can call it. A new guide is a file with a class; `METHODS`
may name it, or a user does, as ``package.module:Class``.

Shapes: B rows, K next tokens: the whole vocabulary, or candidates.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guides.weights import Weight
from rewardsteer.errors import ConfigError


class LogitsGuide:
    """Base of all guides.

    Args:
        scorer: the reward model, or several as a `rewardsteer.decoding.ensemble.RewardEnsemble`.
        config: ``top_k`` for candidates, and see `Weight`.

    Attributes:
        asks: the rewards of all ``next_tokens``, one call for each token; those of the policy's
            ``top_k`` best tokens (``candidates``), one call for each of these; or ``nothing``.
        needs: the head that knows such rewards: ``vocabulary``, ``scalar``, ``any`` or ``none``.
        trained_on: objectives, one of which the reward model was trained with; empty: any will do.
        default_for: the objective for whose reward models this is the default, "" for all others
            with its head, None for none.
        reads_log_probabilities: takes rewards for logits of a language model; the default for
            reward models that were trained so.
        name: of the method.
        candidates: how many tokens are asked about; 0: all.
        abilities: of the engine that it cannot do without; follow from what it asks.
        gated: whether it acts at some tokens alone, see `rewardsteer.decoding.guides.gates`.
        settings: the configuration as given; the default gate of responses is made from it.
        scout: a second guide whose scores a gate measures instead of this one's; None: none.

    Raises:
        MismatchError: no reward model, or one with the wrong head or training.
        ConfigError: candidates are asked about, and top_k is 0.
    """

    asks: Literal["next_tokens", "candidates", "nothing"] = "next_tokens"
    needs = "vocabulary"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None
    wants_goal = takes_goal = wants_drafter = False
    drafter: Any = None
    has_weight = True
    several_models = True
    judges_texts = compares = False
    stands_in = reads_log_probabilities = False
    uses: tuple[str, ...] = ()
    abilities: frozenset[str] = frozenset({"logits"})

    def __init_subclass__(cls) -> None:
        """Set the abilities: candidates need no other logits, and a guide without rewards none."""
        if "asks" in vars(cls):
            cls.abilities = frozenset() if cls.asks == "nothing" else frozenset(
                {"candidates" if cls.asks == "candidates" else "logits"}
            )

    def __init__(self, scorer: Any, config: DecodingConfig) -> None:
        self.name, self.scorer, self.weight = config.method, scorer, Weight(config)
        self.candidates = config.top_k if self.asks == "candidates" else 0
        self.settings, self.gated = config, config.gate != "always"
        self.scout: LogitsGuide | None = None
        if self.asks == "nothing":
            self.scorer = None
            return
        check_scorer(self.name, type(self), scorer)
        if self.asks == "candidates" and not config.top_k:
            raise ConfigError(
                f"The method {self.name!r} asks the reward model about the policy's top_k best "
                "tokens; top_k must be at least 1, got 0."
            )

    def transform(self, rewards: Tensor) -> Tensor:
        """What is added to the logits, before the weight, from rewards ``[B, K]`` (float32) of the
        tokens that the reward model knows."""
        return rewards

    def pull(self, rewards: Tensor, weight: Tensor) -> Tensor:
        """What transformed rewards ``[B, K]`` add to the logits under weights ``[B, 1]``."""
        return weight * rewards

    def __call__(
        self, logits: Tensor, rewards: Tensor, weight: Weight, steps: Sequence[int],
        known: Tensor | None = None,
    ) -> Tensor:
        """Guided scores ``[B, K]`` (float32).

        Args:
            logits: ``[B, K]`` of the policy (float32).
            rewards: ``[B, K]``, transformed.
            weight: how strongly they pull; may differ from row to row.
            steps: per row, tokens generated so far.
            known: ``[B, K]`` bool, False on tokens that the reward model does not know; None: it
                knows all.
        """
        return weight.guided(logits, rewards, steps, known, self.pull)
