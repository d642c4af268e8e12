"""A server at an address."""

from collections.abc import Iterator

from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient
from rewardsteer.errors import RewardsteerError


class GivenAddress(Check):
    """The numbers that a server gives for the texts, as they come from it."""

    name = "address"

    def run(self, patient: Patient) -> Iterator[Finding]:
        """Asks the server, if one was given."""
        address = patient.address
        if address is None:
            return
        from rewardsteer.models.remote.scorer import RemoteScorer

        samples = patient.samples
        try:
            server = RemoteScorer(
                address.url, api=address.api, model=address.model, activation="none",
                tokenizer=patient.tokenizer if address.api in ("sglang", "openrlhf") else None,
                template=patient.scorer.template if address.api in ("sglang", "openrlhf") else None,
            )
            numbers = server.score(samples.prompts, samples.completions)
        except RewardsteerError as error:
            yield self.found("fault", f"{address.url} gives no rewards: {error}")
            return
        yield self.compared(patient, numbers, address.url, api=server.api)
