"""Check: our own server, run in this process, gives the same rewards."""

import asyncio
import importlib.util
from collections.abc import Iterator

import numpy as np

from rewardsteer.data.render import plain_prompt
from rewardsteer.doctor.checks.base import Check
from rewardsteer.doctor.findings import Finding
from rewardsteer.doctor.patient import Patient
from rewardsteer.errors import DataError

_PARTS = ("fastapi", "uvicorn", "prometheus_client", "httpx")


class OwnServer(Check):
    """``/v1/rewards`` of ``rewardsteer serve`` with this model, without a port."""

    name = "server"

    def run(self, patient: Patient) -> Iterator[Finding]:
        absent = [name for name in _PARTS if importlib.util.find_spec(name) is None]
        if absent:
            yield self.found(
                "not checked", f"serving needs {', '.join(absent)}; run "
                "pip install 'rewardsteer[serve]'",
            )
            return
        numbers = np.array(asyncio.run(_rewards(patient)))
        yield self.compared(patient, numbers, "rewardsteer serve")


async def _rewards(patient: Patient) -> list[float]:
    import httpx

    from rewardsteer.decoding.config import DecodingConfig
    from rewardsteer.serving.app import create_app
    from rewardsteer.serving.config import ServingConfig
    from rewardsteer.serving.models import ServedModels
    from rewardsteer.serving.service import Service

    # Only the model's own limit applies to lengths.
    limits, scorer = ServingConfig(max_prompt_tokens=1 << 20), patient.scorer
    served = ServedModels(None, None, scorer, DecodingConfig(), limits, template=scorer.template)
    service = Service(served, limits)
    service.start()
    try:
        transport = httpx.ASGITransport(app=create_app(service))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://doctor", timeout=limits.seconds
        ) as client:
            items = [
                {"prompt": plain_prompt(prompt), "completion": text} for prompt, text in
                zip(patient.samples.prompts, patient.samples.completions, strict=True)
            ]
            found: list[float] = []
            for at in range(0, len(items), limits.max_reward_rows):
                body = {"input": items[at : at + limits.max_reward_rows]}
                answer = await client.post("/v1/rewards", json=body)
                if answer.status_code != httpx.codes.OK:
                    raise DataError(f"Our server refuses the texts: {answer.text}")
                found += [float(one["reward"]) for one in answer.json()["data"]]
            return found
    finally:
        service.stop()

