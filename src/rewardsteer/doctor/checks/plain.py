"""Check: transformers' own classes give the same rewards."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient, largest
from rewardsteer.kernels.precision import exact
from rewardsteer.models.attention import with_caps_of
from rewardsteer.models.heads import HEADS


class PlainTransformers(Check):
    """``AutoModelForSequenceClassification`` (or ``AutoModelForCausalLM`` for a vocabulary head) on
    the written texts, one at a time, and together with padding on either side."""

    name = "transformers"
    needs_tokens = True
    compares = True

    def run(self, patient: Patient) -> Iterator[Finding]:
        folder = patient.folder
        reason = _obstacle(patient)
        if reason:
            yield self.found("not checked", reason)
            return
        next_token = bool(patient.scorer.gives_next_token)  # type: ignore[attr-defined]
        model = _load(patient, next_token=next_token)
        rows = [[*prompt, *ids] for prompt, ids in zip(*patient.written, strict=True)]
        alone = np.array([_logit(model, [row], next_token=next_token)[0] for row in rows])
        who = type(model).__name__
        yield self.compared(patient, alone, f"{who}, one text at a time,")
        pad = patient.tokenizer.pad_token_id
        if next_token or pad is None or folder.config.get("pad_token_id") is None:
            return
        for side in ("right", "left"):
            together = np.array(_logit(model, rows, pad=pad, side=side))
            if not patient.equal(together, alone):
                yield self.found(
                    "fault", f"{who} gives other rewards for texts that are padded on the {side} "
                    f"than one at a time (largest difference {largest(together, alone):.3g}); "
                    "score one text at a time there", side=side,
                )


def _obstacle(patient: Patient) -> str:
    folder, scorer = patient.folder, patient.scorer
    head = scorer.reward_model.head_config  # type: ignore[attr-defined]
    if folder.is_adapter:
        return "an adapter is merged into its base model first; merge it and examine that folder"
    if head.layers != "linear" or head.outputs > 1 or head.kind not in HEADS.names():
        return "transformers has no class for the head"
    if scorer.autoregressive:  # type: ignore[attr-defined]
        return "rewards are sums of log-probabilities, which no class of transformers gives"
    if not (scorer.scores_last_token or scorer.gives_next_token):  # type: ignore[attr-defined]
        return "rewards are aggregates of steps, which no class of transformers gives"
    wanted = head.head_class.auto_class.removeprefix("AutoModel")
    if not folder.architecture.endswith(wanted) or folder.config.get("auto_map"):
        return f"{folder.architecture or 'the folder'} is no class of transformers for rewards"
    return ""


def _load(patient: Patient, *, next_token: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind: Any = AutoModelForCausalLM if next_token else AutoModelForSequenceClassification
    scorer: Any = patient.scorer
    folder = str(patient.folder.path)
    model = kind.from_pretrained(
        folder, dtype=patient.dtype, trust_remote_code=False, **with_caps_of(folder, {})
    )
    return model.to(scorer.reward_model.device).eval()


@torch.no_grad()
def _logit(
    model: Any, rows: list[list[int]], *, next_token: bool = False, pad: int = 0,
    side: str = "right",
) -> list[float]:
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    pairs = list(zip(rows, fill, strict=True))
    ids = torch.tensor([[*row, *extra] if side == "right" else [*extra, *row]
                        for row, extra in pairs], device=model.device)
    ones = [([1] * len(row), [0] * len(extra)) for row, extra in pairs]
    mask = torch.tensor([[*real, *extra] if side == "right" else [*extra, *real]
                         for real, extra in ones], device=model.device)
    logits = exact(model(input_ids=ids, attention_mask=mask).logits)
    if next_token:
        return [float(logits[0, -2, ids[0, -1]])]
    return [float(value) for value in logits[:, 0]]
