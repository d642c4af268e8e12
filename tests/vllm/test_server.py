"""vLLM's own server: guided completions and chat by two tensor-parallel workers, and rewards on its
endpoints for classification, pooling and scoring."""

import contextlib
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForSequenceClassification

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from benchmarks.vllm_server import VLLMServer  # noqa: E402
from rewardsteer.decoding.engines.vllm_settings import guided_by  # noqa: E402
from rewardsteer.decoding.engines.vllm_start import start  # noqa: E402
from rewardsteer.models.kinds import load_scorer  # noqa: E402
from rewardsteer.models.remote.scorer import RemoteScorer  # noqa: E402
from tests.fakes import character_tokenizer  # noqa: E402
from tests.models.test_shared_backbone import keep_adapter  # noqa: E402
from tests.vllm.models import (  # noqa: E402
    LENGTH,
    WEIGHTS,
    expected,
    make_requests,
    save_models,
)

NEW = 16
NAMES = ("farma", "genarm", "adapter")


class Server(VLLMServer):
    """A server of the model ``m``."""

    def __init__(self, log, model, *options, **environment):
        super().__init__(log, model, LENGTH, "--served-model-name", "m", *options, **environment)

    def post(self, path, **body):
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps({"model": "m"} | body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = save_models(tmp_path_factory.mktemp("models"))
    keep_adapter(root / "policy", root / "adapter", "vocabulary")
    return root


@pytest.fixture(scope="module")
def servers(root):
    """Guided generation by two workers, and scoring; they start side by side."""
    with contextlib.ExitStack() as stack:
        yield [server.wait() for server in [
            stack.enter_context(Server(
                root / "guided.log", root / "policy", "--tensor-parallel-size", "2",
                "--hf-overrides", json.dumps(guided_by([root / name for name in NAMES])),
            )),
            stack.enter_context(Server(
                root / "scoring.log", root / "args", "--runner", "pooling",
                "--distributed-executor-backend", "uni",
                "--hf-overrides", json.dumps({"use_sep_token": False}),
            )),
        ]]


@pytest.fixture(scope="module")
def guided(servers):
    return servers[0]


def chat_prompt(content):
    return f"user: {content}\n"


def make_asked(requests):
    """What 32 clients ask: completions and chats, guided by either reward model or not at all,
    greedy or drawn. For each: a chat or not, its parameters, what it asks."""
    asked = []
    for number in range(len(requests)):
        parameters = {"max_tokens": NEW, "temperature": 0.0}
        if number % 5 == 4:
            parameters |= {"temperature": 1.0, "seed": number}
        weight, extra = WEIGHTS[number // 2 % 4], {}
        if weight:
            extra = {"reward_weight": weight, "reward_model": NAMES[number // 8 % 3]}
        asked.append((bool(number % 2), parameters, extra))
    return asked


def test_32_clients_get_what_offline_requests_get(guided, root):
    requests = make_requests(32, 40)
    asked = make_asked(requests)

    def ask(number):
        chat, parameters, extra = asked[number]
        body = parameters | {"return_token_ids": True} | ({"vllm_xargs": extra} if extra else {})
        if chat:
            message = {"role": "user", "content": requests[number].prompt}
            answer = guided.post("/v1/chat/completions", messages=[message], **body)
        else:
            answer = guided.post("/v1/completions", prompt=requests[number].prompt_ids, **body)
        return answer["choices"][0]["token_ids"]

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, range(32)))

    prompts = [
        character_tokenizer().encode(chat_prompt(request.prompt)) if chat else request.prompt_ids
        for request, (chat, _, _) in zip(requests, asked, strict=True)
    ]
    llm = start(
        str(root / "policy"), dtype="float32", enforce_eager=True, max_model_len=LENGTH,
        distributed_executor_backend="uni",
        hf_overrides=guided_by([root / name for name in NAMES]),
    )
    outputs = llm.generate(
        [{"prompt_token_ids": ids} for ids in prompts],
        [vllm.SamplingParams(**p, extra_args=extra) for _, p, extra in asked], use_tqdm=False,
    )
    assert found == [list(output.outputs[0].token_ids) for output in outputs]
    for number, (_, parameters, extra) in enumerate(asked):
        if parameters["temperature"] == 0:
            request = requests[number].model_copy(update={"prompt_ids": prompts[number]})
            right = expected(
                root, extra.get("reward_model", "farma"), [request],
                extra.get("reward_weight", 0.0), NEW,
            )
            assert found[number] == right[request.id], number


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        ({"reward_weight": "much"}, "'reward_weight' must be a finite number, got 'much'"),
        ({"reward_weight": [1.0]}, "'reward_weight' must be a finite number"),
        ({"reward_weight": 1, "reward_model": "best"}, "'adapter', got 'best'"),
        ({"reward_weight": 1, "reward_top_k": 5}, "Unknown argument 'reward_top_k'"),
        ({"reward_wieght": 1}, "Did you mean 'reward_weight'"),
    ],
)
def test_bad_values_are_the_clients_fault(guided, extra, part):
    message = {"role": "user", "content": "a"}
    for path, body in (
        ("/v1/completions", {"prompt": "a"}), ("/v1/chat/completions", {"messages": [message]})
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            guided.post(path, vllm_xargs=extra, **body)
        assert caught.value.code == 400
        assert part in json.load(caught.value)["error"]["message"]
    assert guided.post("/v1/completions", prompt="a", max_tokens=2)["choices"]


def test_scoring_endpoints_give_the_rewards(servers, root):
    texts = [request.prompt for request in make_requests(8)]
    rows = [character_tokenizer().encode(text) for text in texts]
    right = list(load_scorer(root / "args").score_ids([[]] * len(rows), rows))
    answer = servers[1].post("/classify", input=texts, use_activation=False)
    assert [one["probs"][0] for one in answer["data"]] == pytest.approx(right, abs=1e-4)
    answer = servers[1].post("/pooling", input=texts, task="classify", use_activation=False)
    assert [one["data"][0] for one in answer["data"]] == pytest.approx(right, abs=1e-4)
    closed = [text + character_tokenizer().eos_token for text in texts]
    answer = servers[1].post("/score", queries="say ", documents=closed, use_activation=False)
    right = list(load_scorer(root / "args").score(["say "] * len(texts), texts))
    assert [one["score"] for one in answer["data"]] == pytest.approx(right, abs=1e-4)


@pytest.mark.parametrize("api", ["auto", "vllm-pooling"])
def test_a_remote_reward_model_is_the_folder_and_transformers(servers, root, api):
    """The same float32 rewards to 1e-4, whatever sigmoid the server would apply by itself."""
    check_remote(servers[1].url, root / "args", api)


def check_remote(url, folder, api):
    fields = {"task": "classify"} if api == "vllm-pooling" else None
    local = load_scorer(folder)
    prompts = [request.prompt for request in make_requests(6, 40)]
    completions = [f"{n} is it" for n in range(6)]
    remote = RemoteScorer(
        url, api=api, tokenizer=str(folder), template=local.template, fields=fields
    )
    found = remote.score(prompts, completions, batch_size=4)
    assert found == pytest.approx(list(local.score(prompts, completions)), abs=1e-4)
    assert (found < 0).any() or (found > 1).any()  # no sigmoid
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        plain = [
            float(model(torch.tensor([[*p, *r]])).logits)
            for p, r in zip(*local.encode(prompts, completions), strict=True)
        ]
    assert found == pytest.approx(plain, abs=1e-4)
    # Written by the server's chat template.
    talk = RemoteScorer(url, api=api, fields=fields)
    texts = [f"user: {p}\nassistant: {c}\n" for p, c in zip(prompts, completions, strict=True)]
    ids = [local.tokenizer.encode(text) for text in texts]
    assert talk.score(prompts, completions) == pytest.approx(
        list(local.score_ids([[]] * len(ids), ids)), abs=1e-4
    )
