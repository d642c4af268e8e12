"""Other ways in which programs turn the same texts into tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewardsteer.data.chat import write_chat
from rewardsteer.data.render import plain_prompt
from rewardsteer.doctor.patient import Patient
from rewardsteer.records import Prompt

# Separators of prompt and completion without a template: words for messages, text.
_JOINS = (("", ""), (", joined by a space", " "), (", joined by a newline", "\n"),
          (", joined by a blank line", "\n\n"))
Rows = tuple[list[list[int]], list[list[int]]]


@dataclass(frozen=True)
class Reading:
    """Token ids that another program may have given the model.

    Attributes:
        name: short, for JSON.
        text: words that follow "texts", such as "without the chat template".
        remedy: what makes the program use the same tokens as here.
        rows: token ids of prompts and responses.
    """

    name: str
    text: str
    remedy: str
    rows: Rows

    def rewards(self, patient: Patient) -> np.ndarray:
        """Rewards ``[N]`` of these rows."""
        return patient.score_ids(*self.rows)


def readings(patient: Patient) -> Iterator[Reading]:
    """All readings of the texts that differ from the model's own and can be computed."""
    if not patient.reads_tokens:
        return
    known = [_joined(patient.read)]
    for one in _every(patient):
        rows = _joined(one.rows)
        if all(rows) and rows not in known:
            known.append(rows)
            yield one


def _every(patient: Patient) -> Iterator[Reading]:
    prompts, responses = patient.written
    whole = "scored at the last token"
    yield Reading(
        "last token", f"{whole}, which is the padding token",
        "give the model a separate padding token", (prompts, responses),
    )
    yield Reading(
        "one token early", "scored one token early",
        "the padding token ends the text: give the model a separate padding token",
        (prompts, [ids[:-1] for ids in patient.read[1]]),
    )
    yield from _bos(patient)
    yield from _end(patient)
    yield from _without_template(patient)
    yield from _opened(patient)
    yield from _cut(patient)


def _bos(patient: Patient) -> Iterator[Reading]:
    bos = patient.tokenizer.bos_token_id
    if bos is None:
        return
    prompts, responses = patient.read
    yield Reading(
        "double BOS", "that begin with beginning-of-text twice",
        "tokenize with add_special_tokens=False, since the template writes beginning-of-text",
        ([[bos, *ids] for ids in prompts], responses),
    )
    yield Reading(
        "no BOS", "without beginning-of-text", "send beginning-of-text",
        ([ids[1:] if ids[:1] == [bos] else ids for ids in prompts], responses),
    )


def _end(patient: Patient) -> Iterator[Reading]:
    eos = patient.tokenizer.eos_token_id
    prompts, responses = patient.written
    if eos is not None:
        yield Reading(
            "end-of-text added", "with end-of-text appended",
            "append nothing to what the template writes",
            (prompts, [[*ids, eos] for ids in responses]),
        )
    scorer: Any = patient.scorer
    yield Reading(
        "end missing", "without the end that the template writes",
        "close the assistant's turn (continue_final_message false)",
        scorer.encode(patient.samples.prompts, patient.samples.completions, closed=False),
    )


def _without_template(patient: Patient) -> Iterator[Reading]:
    tokenizer, samples = patient.tokenizer, patient.samples
    remedy = "apply the model's chat template (send messages)"
    plain = [prompt if isinstance(prompt, str) else None for prompt in samples.prompts]
    if None not in plain:
        for name, between in _JOINS:
            texts = [
                f"{prompt}{between}{text}"
                for prompt, text in zip(plain, samples.completions, strict=True)
            ]
            yield from _texts("template missing", f"without the chat template{name}", remedy,
                              texts, patient)
    yield from _texts(
        "completion alone", "that are the completion alone", "send the prompt too",
        samples.completions, patient,
    )
    if getattr(tokenizer, "chat_template", None) and patient.scorer.template is not None and (
        patient.scorer.template.kind != "chat"
    ):
        written = [write_chat(tokenizer, _turns(prompt, text)) for prompt, text in
                   zip(samples.prompts, samples.completions, strict=True)]
        yield from _texts(
            "template applied", "with the tokenizer's chat template",
            "use one template on both sides", written, patient, special=False,
        )


def _texts(
    name: str, text: str, remedy: str, texts: list[str], patient: Patient, *, special: bool = True
) -> Iterator[Reading]:
    ids = [list(one) for one in patient.tokenizer(texts, add_special_tokens=special)["input_ids"]]
    yield Reading(name, text, remedy, ([[] for _ in ids], ids))
    eos = patient.tokenizer.eos_token_id
    if eos is not None:
        yield Reading(
            name, f"{text}, with end-of-text", remedy, ([[] for _ in ids], [[*i, eos] for i in ids])
        )


def _opened(patient: Patient) -> Iterator[Reading]:
    tokenizer, samples = patient.tokenizer, patient.samples
    template = patient.scorer.template
    if template is None or template.kind != "chat":
        return
    texts = [
        write_chat(tokenizer, _turns(prompt, text), answer=True)
        for prompt, text in zip(samples.prompts, samples.completions, strict=True)
    ]
    ids = [list(one) for one in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    yield Reading(
        "generation prompt", "with another assistant turn opened at the end",
        "set add_generation_prompt to false", ([[] for _ in ids], ids),
    )


def _cut(patient: Patient) -> Iterator[Reading]:
    whole = _joined(patient.written)
    longest = max(map(len, whole))
    limits = {512, 1024, 2048, 4096, int(min(patient.tokenizer.model_max_length, 1 << 30))}
    for limit in sorted(limits):
        if limit >= longest:
            continue
        for side, part in (("end", slice(None, limit)), ("beginning", slice(-limit, None))):
            yield Reading(
                f"cut to {limit}", f"cut to {limit} tokens at their {side}",
                "raise the length limit there", ([[] for _ in whole], [ids[part] for ids in whole]),
            )


def _turns(prompt: Prompt, completion: str) -> list[dict[str, Any]]:
    plain = plain_prompt(prompt)
    turns = [{"role": "user", "content": plain}] if isinstance(plain, str) else plain
    return [*turns, {"role": "assistant", "content": completion}]


def _joined(rows: Rows) -> list[list[int]]:
    return [[*prompt, *response] for prompt, response in zip(*rows, strict=True)]
