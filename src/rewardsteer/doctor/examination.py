"""`examine`: all checks on a reward model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardsteer.data.template import Template
from rewardsteer.devices import AUTO
from rewardsteer.doctor.checks import CHECKS, ORDER
from rewardsteer.doctor.findings import Diagnosis, Finding, Token
from rewardsteer.doctor.patient import Address, Patient
from rewardsteer.doctor.samples import built_in, read_samples
from rewardsteer.errors import RewardsteerError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.folder import describe_folder
from rewardsteer.models.places import locate

if TYPE_CHECKING:
    from rewardsteer.models.text_scorer import TextScorer


def examine(
    model: str | Path, *, scorer: "TextScorer | None" = None, texts: str | Path | None = None,
    url: str | None = None, api: str = "auto", served_model: str | None = None,
    template: Template | None = None, revision: str | None = None, **options: Any,
) -> Diagnosis:
    """Examine a reward model.

    Args:
        model: a folder, or a name on the hub.
        scorer: the model, where it is loaded already.
        texts: JSON lines with ``prompt`` and ``completion``, or ``chosen`` and ``rejected``; None:
            ten short questions with a better and a worse answer.
        url: address of a server that should give the same rewards; None: none.
        api: its form: ``auto``, ``rewardsteer``, ``vllm``, ``vllm-pooling``, ``sglang`` or
            ``openrlhf``.
        served_model: the model's name there; None: the only one.
        template: how texts are written; None: the model's own.
        revision: branch, tag or commit on the hub.
        options: of `rewardsteer.models.kinds.load_scorer` (kind, device, dtype, …).

    Raises:
        CheckpointError: there is no such model.
        DataError: ``texts`` cannot be read.
    """
    samples = built_in() if texts is None else read_samples(Path(texts))
    address = None if url is None else Address(url, api, served_model)
    place = locate(model, revision)
    folder = describe_folder(str(model), place)
    findings = []
    if scorer is None:
        try:
            scorer = load_scorer(
                model, template=template, revision=revision, **{"device": AUTO, **options}
            )
        except RewardsteerError as error:
            findings.append(Finding("loading", "fault", str(error)))
    patient = Patient(folder, scorer, samples, template=template, address=address)
    findings += _findings(patient)
    return Diagnosis(str(model), _about(patient), _tokens(patient), findings)


def _findings(patient: Patient) -> Iterator[Finding]:
    for name in ORDER:
        check = CHECKS.get(name)
        if check.needs_model and patient.maybe_scorer is None:
            continue
        if check.needs_tokens and not patient.reads_tokens:
            if check.compares:
                yield Finding(
                    name, "not checked", f"a reward model of the kind {patient.scorer.kind} "
                    "gets texts here, not token ids",
                )
            continue
        try:
            yield from check().run(patient)
        except RewardsteerError as error:
            yield Finding(name, "fault", str(error))


def _tokens(patient: Patient) -> list[Token]:
    if patient.maybe_scorer is None or not patient.reads_tokens:
        return []
    (prompt, *_), (response, *_) = patient.read
    names = patient.tokenizer.convert_ids_to_tokens
    return [
        *(Token(id, str(names(id)), "prompt") for id in prompt),
        *(Token(id, str(names(id)), "response") for id in response),
    ]


def _about(patient: Patient) -> dict[str, str]:
    folder, scorer = patient.folder, patient.maybe_scorer
    found = {"architecture": folder.architecture or ("adapter" if folder.is_adapter else "unknown")}
    if scorer is None:
        return found
    found["kind"] = scorer.kind or type(scorer).__name__
    model: Any = getattr(scorer, "reward_model", None)
    if model is not None:
        dtype = str(patient.dtype).removeprefix("torch.")
        found["weights"] = f"{dtype} on {model.device}, rewards in float32"
    if scorer.template is not None:
        found["template"] = _template_of(patient)
    found["activation"] = str(scorer.provenance().get("activation") or "none: raw rewards")
    if patient.tokenizer is not None:
        found["special tokens"] = _special(patient.tokenizer)
    if patient.reads_tokens:
        tokens = _tokens(patient)
        last = tokens[-1]
        found["reward at"] = f"token {len(tokens)} of the first text, {last.text!r} (id {last.id})"
    found["equal"] = patient.stated()
    return found


def _template_of(patient: Patient) -> str:
    template = patient.scorer.template
    assert template is not None
    if template.kind == "chat":
        return "chat: the tokenizer's own"
    end = ", then end-of-text" if template.append_eos else ""
    return f"text: {template.prompt!r}, then {template.response!r}{end}"


def _special(tokenizer: Any) -> str:
    shown = []
    for name, text, id in (
        ("begins", tokenizer.bos_token, tokenizer.bos_token_id),
        ("ends", tokenizer.eos_token, tokenizer.eos_token_id),
        ("pads", tokenizer.pad_token, tokenizer.pad_token_id),
    ):
        shown.append(f"{name} {text!r} (id {id})" if text is not None else f"{name}: none")
    return ", ".join(shown)
