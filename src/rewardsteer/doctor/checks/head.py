"""Check: the weights of the reward head are in the folder."""

from collections.abc import Iterator

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient

# Names of reward heads in public checkpoints.
_HEADS = frozenset({
    "score", "classifier", "classification_head", "v_head", "value_head", "reward_head",
    "regression_head", "regression_layer", "out_proj", "summary", "lm_head",
})


class Head(Check):
    """A head without weights is drawn at random when it is loaded, with a warning at most."""

    name = "head"
    needs_model = False

    def run(self, patient: Patient) -> Iterator[Finding]:
        folder = patient.folder
        if not folder.tensors:
            return
        classifier = folder.architecture.endswith("ForSequenceClassification")
        if folder.has_card or not (folder.is_adapter or classifier):
            return
        heads = sorted(
            name for name in folder.tensors if _HEADS.intersection(name.split("."))
        )
        if heads:
            yield self.found("ok", f"its weights are {', '.join(heads[:3])}", weights=heads)
        elif folder.is_adapter:
            yield self.found(
                "fault", "the adapter has no weights of the reward head, so every program draws "
                "one at random: rewards are noise. Train it with the head among the saved modules "
                "(peft: modules_to_save=['score'], task_type='SEQ_CLS')",
            )
        else:
            yield self.found(
                "fault", "the folder has no weights of the reward head, so transformers draws one "
                "at random: rewards are noise. Copy the complete folder again, or name the model's "
                "kind (--kind)",
            )
