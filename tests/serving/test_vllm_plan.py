"""What `serve --engine vllm` tells vLLM's server, without running it."""

import json
import logging
import re
import shutil
import sys
import tempfile

import pytest
from transformers import GenerationConfig

from rewardsteer.data.render import render_prompt
from rewardsteer.data.template import Template
from rewardsteer.decoding.engines import vllm_start
from rewardsteer.decoding.engines.vllm_settings import GuideSettings, guided_by
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.checkpoint import read_card, write_card
from rewardsteer.records import Message
from rewardsteer.serving import vllm_server
from rewardsteer.serving.vllm_server import command, plan, replace_by_vllm
from rewardsteer.serving.vllm_template import chat_template
from tests.fakes import character_tokenizer
from tests.vllm.models import save_models

TALK = [
    Message(role="user", content="Say \"hi\" {now}.\nPlease"),
    Message(role="assistant", content="hi"), Message(role="user", content="again"),
]
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"


NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


def test_requests_that_say_nothing_are_guided(root, caplog):
    caplog.set_level(logging.INFO, "rewardsteer")
    options = plan(str(root / "policy"), root / "farma", weight=1.5)
    assert "method: farma (the default for a vocabulary head" in caplog.text
    assert options["hf_overrides"] == {
        "architectures": ["RewardGuidedForCausalLM"],
        "rewardsteer": {"models": [str(root / "farma")], "weight": 1.5},
    }
    assert options["override_generation_config"] == NEUTRAL
    options = plan(str(root / "policy"), root / "genarm", top_k=5, temperature=0.0)
    assert options["hf_overrides"]["rewardsteer"]["weight"] == 1.0
    assert options["override_generation_config"] == NEUTRAL | {
        "temperature": 0.0, "top_k": 5,
    }
    assert "hf_overrides" not in plan(str(root / "policy"), None)


def test_a_reward_model_for_a_method_that_vllm_lacks_is_refused(root, tmp_path):
    shutil.copytree(root / "farma", tmp_path / "outcome")
    card = read_card(root / "farma").model_copy(update={"objective": "outcome"})
    write_card(tmp_path / "outcome", card)
    with pytest.raises(ConfigError, match=r"vLLM does not know the method 'q_sharp'.* outcome"):
        plan(str(root / "policy"), tmp_path / "outcome")


def test_a_folder_may_have_any_name(root, tmp_path):
    strange = tmp_path / "a:b, c" / "x:y"
    shutil.copytree(root / "farma", strange)
    settings = GuideSettings.model_validate(
        plan(str(root / "policy"), strange)["hf_overrides"]["rewardsteer"]
    )
    assert settings.folders == {"x:y": strange}


def test_the_policys_own_settings(root, tmp_path):
    shutil.copytree(root / "policy", tmp_path / "policy")
    GenerationConfig(
        do_sample=True, temperature=0.6, top_k=20, top_p=0.9
    ).save_pretrained(tmp_path / "policy")
    options = plan(str(tmp_path / "policy"), None)
    assert options["override_generation_config"] == NEUTRAL | {
        "temperature": 0.6, "top_k": 20, "top_p": 0.9,
    }
    assert options["generation_config"] == "vllm"


@pytest.mark.parametrize(("reward", "asked", "words"), [
    (None, {"method": "farma"}, "needs a reward model"),
    (None, {"weight": 2.0}, "weight 2 (--weight) needs a reward model"),
    (None, {"stop": ["a"]}, "Leave them out (--stop)"),
    ("farma", {"method": "genarm"}, "here 'farma'; leave out the method (--method)"),
    ("args", {}, "vocabulary head for farma or genarm, or use the engine transformers (--engine)"),
    ("farma", {"reward_device": "cpu"}, "(--reward-device, --reward-dtype)"),
    ("farma", {"weight": 1e39}, "weight"),
    ("farma", {"temperature": 1e-9}, "temperature"),
])
def test_refused(root, reward, asked, words):
    with pytest.raises((ConfigError, MismatchError), match=re.escape(words)):
        plan(str(root / "policy"), reward and root / reward, **asked)


def test_nothing_is_dropped_and_no_file_is_left(root, tmp_path, monkeypatch):
    started = {}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(vllm_server.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(vllm_server, "check_device", lambda name: started.update(device=name))
    monkeypatch.setattr(vllm_start, "built_for", lambda: "cuda")
    monkeypatch.setattr(
        vllm_server.os, "execve", lambda *arguments: started.update(arguments=arguments)
    )
    common = {
        "key": "k", "device": "cuda", "name": None, "host": "h", "port": 1, "dtype": None,
        "options": {"hf_overrides": {"a": False}, "seed": 3},
    }
    with pytest.raises(ConfigError, match=r"places=3 \(--limit\) is for our own server"):
        replace_by_vllm(str(root / "policy"), root / "farma", limits=["places=3"], **common)
    replace_by_vllm(
        str(root / "policy"), root / "farma", limits=[], weight=0.5,
        template=Template(kind="text", answer="\nA:"), **common,
    )
    program, words, environment = started["arguments"]
    assert (program, started["device"]) == (sys.executable, "cuda")
    assert environment["VLLM_API_KEY"] == "k"
    values = dict(word[2:].split("=", 1) for word in words if "=" in word)
    assert json.loads(values["hf-overrides"]) == guided_by([root / "farma"], 0.5) | {"a": False}
    assert values["seed"] == "3"
    assert "A:" in values["chat-template"]
    assert not list(tmp_path.iterdir())


def test_on_cpus_prompts_are_not_read_in_chunks(monkeypatch):
    monkeypatch.setattr(vllm_start, "built_for", lambda: "cpu")
    assert vllm_start.for_cpus({"seed": 1}) == {"enable_chunked_prefill": False, "seed": 1}
    for given in ({"enable_chunked_prefill": True}, {"max_num_batched_tokens": 512}):
        assert vllm_start.for_cpus(given) == given
    monkeypatch.setattr(vllm_start, "built_for", lambda: "cuda")
    assert vllm_start.for_cpus({}) == {}


def test_options_are_json():
    options = {
        "hf_overrides": {"use_sep_token": False, "x": None}, "allowed": ["a"], "none": None,
        "share": 0.5, "word": "auto", "eager": True,
    }
    words = command("m", name="n", host="h", port=1, dtype=None, options=options)
    assert words[-6:] == [
        '--hf-overrides={"use_sep_token": false, "x": null}', '--allowed=["a"]', "--none=null",
        "--share=0.5", "--word=auto", "--eager",
    ]


@pytest.mark.parametrize("template", [
    Template(kind="text"), Template(kind="text", system="Be \"brief\"."),
    Template(kind="text", prompt="[[{prompt}]]", answer="\n\tA: ", turns={
        "user": "U({content}|{content})", "assistant": "{% A %}{content}", "system": "S",
    }),
    Template(kind="chat"), Template(kind="chat", system="Be brief."),
])
@pytest.mark.parametrize("talk", [TALK, [Message(role="system", content="s"), *TALK]])
def test_vllm_writes_what_we_write(template, talk):
    tokenizer = character_tokenizer()
    tokenizer.chat_template = CHAT
    ours = render_prompt(talk, template, tokenizer)
    tokenizer.chat_template = chat_template(template, tokenizer)
    theirs = tokenizer.apply_chat_template(
        [one.model_dump(include={"role", "content"}) for one in talk], tokenize=False,
        add_generation_prompt=True,
    )
    assert theirs == ours


def test_roles_without_a_format_are_refused():
    tokenizer = character_tokenizer()
    tokenizer.chat_template = chat_template(Template(kind="text"), tokenizer)
    with pytest.raises(Exception, match="no format for the role oracle; it knows assistant"):
        tokenizer.apply_chat_template([{"role": "oracle", "content": "x"}], tokenize=False)
