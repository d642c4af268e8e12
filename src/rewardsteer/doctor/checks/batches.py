"""Check: batch size, order and padding side do not change rewards."""

from collections.abc import Iterator

import numpy as np
import torch

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient, largest
from rewardsteer.models.batching import left_pad, right_pad


class Batches(Check):
    """Compares rewards of the texts alone, in a batch, reordered, and padded on either side."""

    name = "batches"

    def run(self, patient: Patient) -> Iterator[Finding]:
        scorer, samples = patient.scorer, patient.samples
        prompts, completions = samples.prompts, samples.completions
        found = {
            "alone": scorer.score(prompts, completions, batch_size=1),
            "all together": scorer.score(prompts, completions, batch_size=len(prompts)),
            "in reverse order": scorer.score(prompts[::-1], completions[::-1], batch_size=3)[::-1],
        }
        if patient.reads_tokens and patient.scorer.scores_last_token:  # type: ignore[attr-defined]
            found["padded on the left"] = _padded(patient, left=True)
            found["padded on the right"] = _padded(patient, left=False)
        worst = max(found, key=lambda name: largest(found[name], found["alone"]))
        difference = largest(found[worst], found["alone"])
        ways = ", ".join(found)
        if all(patient.equal(values, found["alone"]) for values in found.values()):
            yield self.found(
                "ok", f"equal rewards {ways}; largest difference {difference:.2g}",
                largest_difference=difference,
            )
        else:
            yield self.found(
                "fault", f"rewards of texts scored {worst} differ from those scored alone by up to "
                f"{difference:.3g}. Score with batch_size=1, or in float32",
                largest_difference=difference, way=worst,
            )


@torch.no_grad()
def _padded(patient: Patient, *, left: bool) -> np.ndarray:
    """Rewards of all texts in one batch, with explicit padding."""
    scorer = patient.scorer
    model = scorer.reward_model  # type: ignore[attr-defined]
    rows = [[*prompt, *ids] for prompt, ids in zip(*patient.read, strict=True)]
    padded = left_pad(rows) if left else right_pad(rows)
    ids, mask = (one.to(model.device) for one in padded)
    last = mask.cumsum(1).argmax(1)
    states = model.hidden_states(ids, mask)
    values: torch.Tensor = model.head.sequence_rewards(states, ids, last)
    return values.cpu().double().numpy()
