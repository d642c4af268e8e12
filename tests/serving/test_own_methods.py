"""Methods of one's own in a server: a guide and a strategy, each one file outside the package."""

import sys
import textwrap

import httpx
import pytest

from tests.cli.test_generate_command import save_reward_model
from tests.fakes import save_tiny
from tests.serving.running import Process, make_service, offline, running

FILES = {
    "served_guide.py": """
        from rewardsteer.decoding.guides.base import LogitsGuide

        class Contrary(LogitsGuide):
            def transform(self, rewards):
                return -rewards
    """,
    "served_strategy.py": """
        from asyncio import gather
        from rewardsteer.decoding.engine import Outcome
        from rewardsteer.decoding.strategies.base import Strategy

        class Humble(Strategy):
            samples = property(lambda self: self.config.n)

            async def respond(self, prompt, engine, scorer):
                written = [engine.start(index) for index in range(self.samples)]
                await gather(*(sample.extend() for sample in written))
                rewards = await scorer.score(written)
                worst = min(range(self.samples), key=rewards.__getitem__)
                return Outcome(written[worst], rewards[worst])
    """,
    # Another one, which clients could name.
    "not_served.py": "class Other: pass",
}
GUIDE, STRATEGY, OTHER = "served_guide:Contrary", "served_strategy:Humble", "not_served:Other"
PROMPTS = ["What is 7+8?", "a", "zz top"]
BODY = {"prompt": PROMPTS, "seed": 5, "max_tokens": 12, "top_k": 0, "apply_template": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files, where Python looks; what was imported from it is forgotten."""
    place, before = tmp_path_factory.mktemp("own"), list(sys.path)
    for name, text in FILES.items():
        (place / name).write_text(textwrap.dedent(text))
    sys.path.insert(0, str(place))
    yield place
    sys.path[:] = before
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture(scope="module", params=[(GUIDE, "vocabulary"), (STRATEGY, "scalar")],
                ids=["guide", "strategy"])
def served(place, folder, request):
    name, head = request.param
    service = make_service(folder, head=head, method=name)
    with running(service) as (address, _):
        yield name, service, address


def ask(address, **body):
    return httpx.post(f"{address}/v1/completions", json=BODY | body, timeout=60)


def answers(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"]


def test_answers_are_those_of_generate(served):
    name, service, address = served
    known = offline(service, PROMPTS, seed=5, max_new_tokens=12, top_k=0)
    found = answers(ask(address))
    for choice, right in zip(found, known, strict=True):
        told = choice["guidance"]
        assert choice["text"] == right.completion
        assert told["method"] == name
        assert told["reward"] == pytest.approx(right.reward, abs=1e-4)
        assert dict(told["cost"], seconds=0) == right.cost.model_dump() | {"seconds": 0}
    plain = answers(ask(address, method="none"))
    assert [one["text"] for one in plain] != [one["text"] for one in found]


def test_it_is_named_by_field_and_by_the_models_name(served):
    name, _, address = served
    listed = httpx.get(f"{address}/v1/models").json()["data"]
    assert f"tiny@{name}" in {one["id"] for one in listed}
    texts = [one["text"] for one in answers(ask(address))]
    assert [one["text"] for one in answers(ask(address, method=name))] == texts
    assert [one["text"] for one in answers(ask(address, model=f"tiny@{name}"))] == texts


@pytest.mark.parametrize("body", [
    {"method": OTHER}, {"model": f"tiny@{OTHER}"}, {"method": "served_guide:LogitsGuide"},
    {"method": "os:system"}, {"method": "not_served.deeper:Other"},
])
def test_a_client_names_no_other(served, body):
    _, _, address = served
    before = set(sys.modules)
    reply = ask(address, **body)
    assert reply.status_code == 400, reply.text
    assert "Unknown decoding method" in reply.json()["error"]["message"]
    assert "not_served" not in set(sys.modules) - before


def test_nor_does_the_inspector(served):
    _, _, address = served
    reply = httpx.post(f"{address}/v1/inspect", timeout=60, json={
        "prompt": "a", "completion": "b", "method": OTHER, "max_tokens": 4,
    })
    assert reply.status_code == 400, reply.text
    assert "Unknown decoding method" in reply.json()["error"]["message"]
    assert "not_served" not in sys.modules


@pytest.mark.slow
def test_the_command_serves_it_from_the_folder_it_runs_in(place, tmp_path, monkeypatch, warm):
    base = save_tiny(tmp_path / "policy", seed=1)
    save_reward_model(base, tmp_path / "reward", "scalar")
    monkeypatch.chdir(place)
    process = Process("serve", "--model", tmp_path / "policy", "--reward-model",
                      tmp_path / "reward", "--method", STRATEGY, "--port", "0", warm=warm)
    try:
        [choice] = answers(ask(process.address, prompt="a", method_settings={"n": 3}))
        assert choice["guidance"]["method"] == STRATEGY
        assert choice["guidance"]["cost"]["rm_calls"] == 3
    finally:
        code = process.end()
    assert code == 0
