"""Check: the template is the model's own, writes one end-of-text, and holds no current date."""

from collections.abc import Iterator

from rewardsteer.data.chat import turn_end
from rewardsteer.data.template import Template, resolve
from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient, largest


class TemplateOfTexts(Check):
    """Rewards are meaningless for texts whose template differs from that of training."""

    name = "template"
    needs_tokens = True

    def run(self, patient: Patient) -> Iterator[Finding]:
        used, tokenizer = patient.scorer.template, patient.tokenizer
        assert used is not None
        chats = bool(getattr(tokenizer, "chat_template", None))
        own = _own(patient)
        found = False
        if patient.given_template is not None and used != own:
            yield self._other(patient, own, "the model's own", "leave out template= (--template)")
            found = True
        elif patient.folder.has_card and used.kind == "text" and chats:
            yield self.found(
                "note", "the model was trained on plain texts, though its tokenizer has a chat "
                "template: servers that apply it give other rewards",
            )
            found = True
        elif not chats and not patient.folder.has_card:
            yield self.found(
                "note", "the tokenizer has no chat template, so texts are written as prompt, "
                "completion and end-of-text; if the model's card names another form, give it as "
                "template= (--template)",
            )
            found = True
        for one in self._ends(patient, used):
            found = True
            yield one
        if not found:
            yield self.found("ok", "texts are written as the model's own template says")

    def _other(self, patient: Patient, own: Template, whose: str, remedy: str) -> Finding:
        rewards = patient.with_template(own)
        difference = largest(rewards, patient.rewards)
        return self.found(
            "fault", f"texts are written with another template than {whose}: the first text gets "
            f"{patient.rewards[0]:.5g}, with {whose} {rewards[0]:.5g} (largest difference "
            f"{difference:.3g}). To repair it: {remedy}", largest_difference=difference,
        )

    def _ends(self, patient: Patient, used: Template) -> Iterator[Finding]:
        tokenizer = patient.tokenizer
        eos = tokenizer.eos_token_id
        prompts, responses = patient.written
        if eos is not None and any(ids[-2:] == [eos, eos] for ids in responses):
            yield self.found(
                "fault", f"texts end with end-of-text twice ({tokenizer.eos_token!r}): the "
                "template writes one, and another is appended. Use append_eos=false",
            )
        if used.kind != "chat":
            return
        end = turn_end(tokenizer)
        if tokenizer.eos_token and end.rstrip().endswith(tokenizer.eos_token):
            again = patient.score_ids(prompts, [[*ids, eos] for ids in responses])
            yield self.found(
                "note", f"the chat template ends an answer with end-of-text ({end!r}); programs "
                "that append another one give other rewards (largest difference "
                f"{largest(again, patient.rewards):.3g})",
            )
        written = str(tokenizer.chat_template)
        if "strftime_now" in written:
            yield self.found(
                "note", "the chat template writes today's date, so rewards change from day to "
                "day; give date_string in a template of your own",
            )


def _own(patient: Patient) -> Template:
    """The template that the folder names."""
    from rewardsteer.data.template import stored_template
    from rewardsteer.models.checkpoint import read_card

    card = read_card(patient.folder.path) if patient.folder.has_card else None
    return resolve(stored_template(card.template if card else {}), patient.tokenizer)
