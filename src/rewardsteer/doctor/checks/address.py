"""Check: a server at an address gives the same rewards."""

from collections.abc import Iterator
from typing import Any

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Address, Patient
from rewardsteer.errors import RewardsteerError
from rewardsteer.models.kinds import load_scorer

# Server APIs that apply no chat template; the template is applied here instead.
_WITHOUT_TEMPLATE = ("sglang", "openrlhf")


class GivenAddress(Check):
    """Compares a server's raw numbers for the texts with the rewards."""

    name = "address"

    def run(self, patient: Patient) -> Iterator[Finding]:
        address = patient.address
        if address is None:
            return
        samples = patient.samples
        try:
            server = load_scorer(address.url, kind="remote", **_options(patient, address))
            numbers = server.score(samples.prompts, samples.completions)
        except RewardsteerError as error:
            yield self.found("fault", f"{address.url} gives no rewards: {error}")
            return
        yield self.compared(patient, numbers, address.url, **server.provenance())


def _options(patient: Patient, address: Address) -> dict[str, Any]:
    found: dict[str, Any] = {"api": address.api, "activation": "none"}
    if address.model is not None:
        found["model"] = address.model
    if address.api in _WITHOUT_TEMPLATE:
        found |= {"tokenizer": patient.tokenizer, "template": patient.scorer.template}
    return found
