"""Check: rounding does not make rewards of different texts equal."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient

# Highest share of pairs of texts with equal rewards that is not yet a fault.
_MOST = 0.05


class Precision(Check):
    """bfloat16 has 8 significant bits: rewards from 16 to 32 are multiples of 1/8."""

    name = "precision"

    def run(self, patient: Patient) -> Iterator[Finding]:
        """Counts equal rewards, as computed and rounded to the weights' dtype, which is the dtype
        of rewards from transformers and vLLM."""
        texts = list(zip(map(repr, patient.samples.prompts), patient.samples.completions,
                         strict=True))
        first = sorted({text: index for index, text in enumerate(texts)}.values())
        rewards = patient.rewards[first]
        if len(rewards) < 2:
            return
        rounded = torch.from_numpy(rewards).to(patient.dtype).double().numpy()
        here, there = _ties(rewards), _ties(rounded)
        name = str(patient.dtype).removeprefix("torch.")
        figures = {"ties": here, "ties_rounded": there, "dtype": name, "texts": len(rewards)}
        if max(here, there) > _MOST:
            where = f"rounded to {name}, as transformers and vLLM give them" if there > here else (
                "here"
            )
            yield self.found(
                "fault", f"{max(here, there):.0%} of pairs of different texts get equal rewards "
                f"{where} ({here:.0%} here, with heads in float32). Load the model in float32 "
                "(--dtype float32)" if there > here else
                f"{here:.0%} of pairs of different texts get equal rewards in {name}. Load the "
                "model in float32 (--dtype float32)", **figures,
            )
        elif max(here, there) > 0:
            yield self.found(
                "note", f"{there:.1%} of pairs of different texts get equal rewards when they are "
                f"rounded to {name} ({here:.1%} here)", **figures,
            )
        else:
            yield self.found(
                "ok", f"{len(rewards)} different texts get different rewards"
                + ("" if patient.dtype == torch.float32 else f", also rounded to {name}"),
                **figures,
            )


def _ties(values: np.ndarray) -> float:
    """The share of pairs that are equal."""
    equal = sum(count * (count - 1) for count in Counter(values.tolist()).values())
    return equal / (len(values) * (len(values) - 1))
