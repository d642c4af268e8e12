"""The rows of the demo's comparison: decoding settings, each with its reward model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.world import longest_solution

# Row → the reward model that guides, and the decoding method.
GUIDED = {
    "args": ("plain", "args"),
    "pargs": ("pargs", "pargs"),
    "genarm": ("genarm", "genarm"),
    "farma": ("farma", "farma"),
    "farma (zeros)": ("farma_zeros", "farma"),
}
UNTRAINED = "farma (untrained)"


class Row(NamedTuple):
    """A row of the comparison.

    Attributes:
        config: its decoding settings.
        model: the reward model that guides; None without guidance.
    """

    label: str
    config: DecodingConfig
    model: str | None = None


def all_rows(weights: Mapping[str, float], goal_threshold: float, config: DemoConfig) -> list[Row]:
    """The rows of the comparison."""
    return [
        Row("none", settings_of(config)),
        Row("none T=0.5", settings_of(config, temperature=0.5)),
        Row("none greedy", settings_of(config, mode="greedy")),
        Row("best_of_n", settings_of(config, method="best_of_n", n=config.best_of), "plain"),
        *(guided_row(label, label, weights[label], config) for label in GUIDED),
        cards_row("cards", weights["cards"], config),
        Row(
            "speculative_rejection",
            settings_of(
                config, method="speculative_rejection", n=config.speculative, decision_tokens=4
            ),
            "plain",
        ),
        Row(
            "goal_filter",
            settings_of(
                config, method="goal_filter", n=config.best_of, drop_start=0,
                drop_threshold=goal_threshold,
            ),
            "goal",
        ),
        Row(
            UNTRAINED, settings_of(config, method="farma", weight=weights["farma"]),
            "farma_untrained",
        ),
    ]


def guided_row(name: str, label: str, weight: float, config: DemoConfig) -> Row:
    """A row of `GUIDED` with a guidance weight."""
    model, method = GUIDED[label]
    return Row(name, settings_of(config, method=method, weight=weight), model)


def cards_row(label: str, target: float, config: DemoConfig) -> Row:
    """CARDS with a reward target."""
    # Segments end where the policy is undecided between a correct fact and its flawed form.
    settings = settings_of(
        config, method="cards", reward_target=target, entropy_threshold=0.5, segment_min=1,
        max_rejections=8,
    )
    return Row(label, settings, "plain")


def settings_of(config: DemoConfig, **options: Any) -> DecodingConfig:
    """Decoding settings: those common to all rows, with a row's own ``options``."""
    options.setdefault("top_k", config.candidates)
    return DecodingConfig(
        max_new_tokens=longest_solution(config), batch_size=200, seed=config.seed, **options
    )
