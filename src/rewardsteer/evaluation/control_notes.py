"""The sentence on a control that the reward does not beat."""

import math

from rewardsteer.evaluation.statistics import Interval


def control_note(
    control: str, figure: str, alone: Interval, reward: float, gain: Interval,
    within: Interval | None = None,
) -> str | None:
    """What a table of solutions or of pairs says of a control; None where the reward beats it and
    adds something within one source, or where there are too few clusters to tell.

    Args:
        control: its name, such as length or source.
        figure: what is compared, such as AUROC.
        alone: the control's figure.
        reward: the reward's, on the same rows.
        gain: the reward's minus the control's.
        within: the reward's within one source, where the control is the source. The reward adds
            nothing there if the interval holds one half while the source alone is above it.
    """
    nothing = within is not None and within.low <= 0.5 < alone.low
    if math.isnan(gain.low) or (gain.low > 0 and not nothing):
        return None
    against = "above" if gain.low > 0 else "below" if gain.high < 0 else "not above"
    text = (
        f"{control} alone: {figure} {alone.value:.3f}; the reward's {reward:.3f} is {against} it "
        f"(difference {gain.value:+.3f}, {gain.low:+.3f} to {gain.high:+.3f})"
    )
    if within is None:
        return text
    text += f"; within one source the reward's is {within.value:.3f}"
    if not math.isnan(within.low):
        text += f" ({within.low:.3f} to {within.high:.3f})"
    return text + (", so the reward adds nothing within source" if nothing else "")
