"""Every method over HTTP, by field and by the model's name: as offline, and when it is given up."""

import sys

import httpx
import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.methods import needs_goal
from rewardsteer.goals.goal_state import GoalState, Provenance
from tests.serving.running import client, make_service, running, wait_until

PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: "]
SETTINGS = {
    "best_of_n": {"n": 3},
    "majority_vote": {"n": 3},
    "speculative_rejection": {"n": 4, "decision_tokens": 2},
    "cards": {"reward_target": 1.0, "segment_min": 2, "segment_tokens": 4, "max_rejections": 2},
    "beam": {"step_value": "goal", "beam": 2, "branches": 2, "step_tokens": 4},
    "goal_filter": {"n": 3, "drop_threshold": -0.1, "drop_start": 2},
}


def make_goal():
    vectors = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    return GoalState("good", vectors, Provenance(kind="mean", model_fingerprint=""))


@pytest.fixture(scope="module")
def served(folder):
    service = make_service(folder, head="scalar", method="args", goals={"good": make_goal()},
                           places=32)
    with running(service) as (address, _):
        yield service, address


def ask(address, **body):
    reply = httpx.post(f"{address}/v1/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_are_those_of_generate(served, name):
    service, address = served
    config = DecodingConfig(**{
        **service.served.defaults.model_dump(), **SETTINGS[name], "method": name,
        "max_new_tokens": 12, "seed": 5, "batch_size": 8, "top_k": 0,
    })
    goals = [make_goal()] if needs_goal(config) else []
    known = generate(
        service.served.engine.policy, service.served.engine.tokenizer, PROMPTS,
        build_method(config, service.served.scorer, *goals), config,
        template=service.served.template,
    )
    found = ask(address, prompt=PROMPTS, method=name, method_settings=SETTINGS[name], seed=5,
                max_tokens=12, top_k=0, apply_template=True)["choices"]
    for choice, right in zip(found, known, strict=True):
        assert choice["text"] == right.completion
        assert choice["guidance"]["method"] == name
        assert choice["guidance"]["reward"] == pytest.approx(right.reward, abs=1e-4)
        ours = dict(choice["guidance"]["cost"], seconds=0)
        # Rows that enter apart are read in passes of their own, never more tokens.
        assert ours == right.cost.model_dump() | {"seconds": 0}


@pytest.mark.parametrize("name", SETTINGS)
def test_log_probabilities_are_those_of_the_answer(served, name):
    """Also where tokens were taken back, or came from another sample."""
    service, address = served
    prompt = service.served.engine.tokenizer.encode(PROMPTS[0])
    # All segments of cards are rejected, and the best one is taken.
    own = {"reward_target": 50.0, "max_rejections": 3} if name == "cards" else {}
    for seed in range(4):
        [choice] = ask(address, prompt=PROMPTS[0], method=name, seed=seed,
                       method_settings=SETTINGS[name] | own, max_tokens=12, logprobs=0,
                       return_token_ids=True)["choices"]
        ids = choice["token_ids"]
        with torch.no_grad():
            logits = service.served.engine.policy(input_ids=torch.tensor([[*prompt, *ids]])).logits
        logs = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        right = logs.gather(1, torch.tensor(ids)[:, None]).squeeze(1).tolist()
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(right, abs=1e-4)


def test_a_method_by_the_models_name(served):
    _, address = served
    listed = httpx.get(f"{address}/v1/models").json()["data"]
    names = {one["id"] for one in listed}
    assert {"tiny", "tiny@none", "tiny@args", "tiny@best_of_n", "tiny@goal_filter"} <= names
    assert "tiny@farma" not in names
    body = {"prompt": "a", "seed": 3, "max_tokens": 8}
    by_field = ask(address, model="tiny", method="best_of_n", best_of=3, **body)
    by_name = ask(address, model="tiny@best_of_3", **body)
    assert by_name["choices"][0]["text"] == by_field["choices"][0]["text"]
    assert by_name["choices"][0]["guidance"]["method"] == "best_of_n"
    assert by_name["usage"] == by_field["usage"]
    plain = ask(address, model="tiny@none", **body)["choices"][0]["guidance"]
    assert (plain["method"], plain["cost"]["rm_calls"]) == ("none", 0)


@pytest.mark.parametrize(("body", "message"), [
    ({"model": "tiny@nothing"}, "Unknown decoding method 'nothing'"),
    ({"model": "tiny@best_of_3", "best_of": 4}, "leave out one of the two"),
    ({"model": "tiny@args", "method": "none"}, "leave out one of the two"),
    ({"model": "other@args"}, "no model 'other@args'"),
    ({"method": "antigravity:fly"}, "Unknown decoding method 'antigravity:fly'"),
    ({"method": "farma"}, "vocabulary"),
    ({"method": "best_of_n", "method_settings": {"calibration": "/etc/passwd"}}, "knows no"),
    ({"method": "goal_filter", "method_settings": {"drop_rule": "probability"}},
     "use 'below', 'patience' or 'none'."),
    ({"method": "best_of_n", "temperature": 0}, "use a temperature above 0 (mode 'sample') or n ="),
    ({"method": "cards", "temperature": 0, "method_settings": {"reward_target": 1.0}},
     "use a temperature above 0 (mode 'sample')."),
    ({"method": "beam", "method_settings": {"beam": 0}}, "expected at least 1, got 0"),
    ({"method": "best_of_n", "method_settings": {"n": 65}}, "may have 64"),
    ({"method": "cards"}, "needs a reward_target"),
])
def test_what_is_refused(served, body, message):
    _, address = served
    reply = httpx.post(f"{address}/v1/completions", json={"prompt": "a"} | body, timeout=60)
    assert reply.status_code in (400, 404), reply.text
    assert message in reply.json()["error"]["message"]
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", SETTINGS)
def test_a_strategy_whose_client_leaves_holds_nothing(folder, name):
    service = make_service(folder, head="scalar", method="args", goals={"good": make_goal()})
    service.served.engine.stop_ids = frozenset()
    with running(service) as (address, middleware), client(address) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", timeout=0.3, json={
                "prompt": "a", "method": name, "max_tokens": 400,
                "method_settings": SETTINGS[name] | (
                    {"step_tokens": 400} if name == "beam" else {}
                ),
            })
        # Caches go when the engine's last step has ended, a moment after the row has.
        wait_until(lambda: not (
            service.worker.busy or service.worker.waiting or service.worker.batches
        ))
        assert middleware.in_flight == 0
