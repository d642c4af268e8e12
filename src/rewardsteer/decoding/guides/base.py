"""What a logits guide is: a method that acts inside an engine, on next-token scores.

    scores = policy logits + pull(rewards, w), w · rewards for most

A guide says what it asks of the reward model and what becomes of the rewards. It knows no engine:
whoever has logits and rewards calls it. A new one is a file with a class; `METHODS` may name it, or
whoever uses it does, as ``package.module:Class``.

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
        trained_on: objectives, one of which must have taken part in the training; none: any will
            do.
        default_for: the objective for whose reward models this is the default, "" for all others
            with its head, None for none.
        reads_log_probabilities: takes rewards for logits of a language model; the default for
            reward models that were trained so.
        name: of the method.
        candidates: how many tokens are asked about; 0: all.
        abilities: of the engine that it cannot do without; follow from what it asks.
        gated: whether it acts at some tokens alone, see `rewardsteer.decoding.guides.gates`.
        settings: as given; what the gate of a response without settings of its own is made from.
        scout: a second guide, whose pull a gate measures in the place of this one's; None: none.

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
        """A guide of candidates needs no logits but theirs, and one that asks nothing none."""
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
        """What is added to the logits, but for the weight, from rewards ``[B, K]`` (float32) of the
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
