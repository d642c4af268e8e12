"""Check: vLLM, where it is installed, gives the same rewards."""

import importlib.util
from collections.abc import Iterator

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient


class Vllm(Check):
    """Scores the texts with the folder in vLLM, in this process."""

    name = "vllm"
    needs_tokens = True
    compares = True

    def run(self, patient: Patient) -> Iterator[Finding]:
        if importlib.util.find_spec("vllm") is None:
            yield self.found(
                "not checked", "vLLM is not installed here; run doctor in its environment, or "
                "start 'vllm serve' and give its address as url= (--url)",
            )
            return
        scorer = patient.scorer
        head = scorer.reward_model.head_config  # type: ignore[attr-defined]
        if head.layers != "linear" or patient.folder.is_adapter:
            yield self.found("not checked", "vLLM loads only complete folders with linear heads")
            return
        from rewardsteer.evaluation.vllm_scorer import VllmScorer

        dtype = str(patient.dtype).removeprefix("torch.")
        try:
            other = VllmScorer(
                patient.folder.path, dtype, template=scorer.template, gpu_memory_utilization=0.4
            )
            numbers = other.score_ids(*patient.read)
        except Exception as error:  # vLLM raises many types for models it cannot run
            yield self.found(
                "not checked", f"vLLM cannot run the model: {type(error).__name__}: {error}"
            )
            return
        yield self.compared(patient, numbers, "vLLM")
