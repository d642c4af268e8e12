"""The inspector over HTTP sees what the library sees."""

import httpx
import pytest

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.evaluation.inspection import FilterRule, inspect_completion
from tests.serving.running import offline


def ask(address, **body):
    return httpx.post(f"{address}/v1/inspect", json=body, timeout=60)


@pytest.mark.parametrize("completion", ["15 or so", None])
def test_equals_the_library(service, address, completion):
    rule = {"signal": "reward", "threshold": 0.0, "start": 2}
    reply = ask(address, prompt="What is 7+8?", completion=completion, method="farma", weight=0.5,
                max_tokens=8, temperature=0.7, seed=4, filter=rule)
    assert reply.status_code == 200, reply.text
    served = service.served
    if completion is None:
        [made] = offline(service, ["What is 7+8?"], seed=4, weight=0.5, temperature=0.7,
                         max_new_tokens=8)
        ids = made.token_ids
    else:
        ids = served.scorer.encode(["What is 7+8?"], [completion])[1][0]
    config = DecodingConfig(method="farma", weight=0.5, temperature=0.7, top_k=5)
    right = inspect_completion(
        served.engine.policy, served.engine.tokenizer, served.scorer,
        build_method(config, served.scorer), served.engine.tokenizer.encode("What is 7+8?"), ids,
        config=config, rule=FilterRule("reward", 0.0, 2),
    ).model_dump(mode="json")
    found = reply.json()
    assert [one["token_id"] for one in found["tokens"]] == ids
    assert found["completion"] == right["completion"]
    assert found["stop"] == right["stop"]
    for one, other in zip(found["tokens"], right["tokens"], strict=True):
        for name in ("reward", "kl", "moved"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)


@pytest.mark.parametrize(("body", "message"), [
    ({"max_tokens": 300}, "at most 256"),
    ({"completion": "a" * 300}, "256 may be looked at"),
    ({"method": "odd"}, "Unknown"),
    ({"filter": {"signal": "similarity", "threshold": 0.5}}, "goal"),
])
def test_what_is_refused(address, body, message):
    reply = ask(address, prompt="a", **body)
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]
