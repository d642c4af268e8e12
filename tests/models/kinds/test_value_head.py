"""One-number heads of all published forms against plain transcriptions of their scoring."""

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import linear, relu
from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXModel
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.errors import CheckpointError, MismatchError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.recognition import find_kind
from rewardsteer.models.text_scorer import TextScorer, require_tokens
from tests.fakes import character_tokenizer, tiny_causal_lm
from tests.models.kinds.published import (
    COMPLETIONS,
    PROMPTS,
    SIZE,
    backbone,
    chat_ids,
    check_order_and_batches,
    publish,
    random,
    states,
)

ROWS = list(zip(PROMPTS, COMPLETIONS, strict=True))


def mlp(prefix, *widths, bias=True):
    sizes = [SIZE, *widths, 1]
    found = {}
    for at, (a, b) in enumerate(itertools.pairwise(sizes)):
        found[f"{prefix}.{2 * at}.weight"] = random(b, a, seed=at)
        if bias:
            found[f"{prefix}.{2 * at}.bias"] = random(b, seed=10 + at)
    return found


# Form, its head's weights, changes of config.json.
FORMS = {
    "openrlhf": ({"score.weight": random(1, SIZE)}, {"architectures": ["RewardModel"]}),
    "openrlhf, older": ({"value_head.weight": random(1, SIZE)}, {
        "architectures": ["LLMForSequenceRegression"], "value_head_prefix": "value_head"}),
    "openrlhf, own name": ({"my_head.weight": random(1, SIZE)}, {
        "architectures": ["RewardModel"], "value_head_prefix": "my_head"}),
    "openrlhf, not normalised": ({"score.weight": random(1, SIZE)}, {
        "architectures": ["RewardModel"], "normalize_reward": False, "mean": 3.0, "std": 2.0}),
    "goal-conditioned, mlp": (mlp("value_head", SIZE // 2, SIZE // 2, SIZE), {
        "architectures": ["LLMForSequenceRegression"]}),
    "grm, mlp": (mlp("v_head.summary", 24), {
        "architectures": ["LlamaForCausalLM"], "vhead_layer_type": "mlp", "vhead_num_neurons": 24,
        "vhead_num_layers": 1}),
    "grm, linear": ({"v_head.summary.weight": random(1, SIZE),
                     "v_head.summary.bias": random(1, seed=3)},
                    {"architectures": ["LlamaForCausalLM"], "vhead_layer_type": "linear"}),
    "ultrarm": ({"regression_head.weight": random(1, SIZE)}, {
        "architectures": ["LlamaRewardModel"]}),
    "inf-orm": (mlp("score", SIZE), {"architectures": ["INFORMForSequenceClassification"]}),
    "qwen2.5-math-rm, worldpm": (mlp("score", SIZE), {
        "architectures": ["Qwen2ForRewardModel"], "auto_map": {"AutoModel": "modeling_q.Q"}}),
    "verl": ({"score.weight": random(1, SIZE), "score.bias": random(1, seed=5)}, {
        "architectures": ["LlamaForTokenClassification"], "num_labels": 1,
        "id2label": {"0": "LABEL_0"}}),
}


def apply(head, state):
    """A published head on one state: linear layers, ReLU between them."""
    names = sorted({name.rpartition(".")[0] for name in head}, key=lambda n: n.rpartition(".")[2])
    for at, name in enumerate(names):
        state = linear(relu(state) if at else state, head[f"{name}.weight"],
                       head.get(f"{name}.bias"))
    return float(state)


def transcribed(folder, head, *, form=""):
    """The last token; of those that follow transformers' classifier, the last that is not padding.
    """
    model, found = backbone(folder), []
    skips = form in ("inf-orm", "qwen2.5-math-rm, worldpm")
    for row in ROWS:
        ids = chat_ids(folder, *row)
        while skips and ids[-1] == model.config.pad_token_id:
            ids.pop()
        found.append(apply(head, states(model, ids)[-1]))
    return np.array(found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["llama3-pad-eos", "gemma"])
def test_forms_equal_their_transcription(tmp_path, form, family):
    """Where padding is end-of-text, the last token counts all the same."""
    head, config = FORMS[form]
    folder = publish(tmp_path / "m", head, family=family, **config)
    assert find_kind(folder)[0] == "value_head"
    scorer = check_order_and_batches(folder, transcribed(folder, head, form=form))
    assert require_tokens(scorer, "guides") is scorer
    steps = [["a", "b"], ["c"], ["d", "e", "f"], ["g"], []]
    for ours, theirs in zip(scorer.step_scores(PROMPTS, steps),
                            TextScorer.step_scores(scorer, PROMPTS, steps), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("form", ["openrlhf", "goal-conditioned, mlp", "grm, linear", "ultrarm",
                                  "grm, mlp", "verl"])
def test_imported_folders_give_the_same_rewards(tmp_path, form):
    head, config = FORMS[form]
    folder = publish(tmp_path / "m", head, family="llama3-pad-eos", **config)
    done = CliRunner().invoke(app, ["import", str(folder), str(tmp_path / "rm")])
    assert done.exit_code == 0, done.output
    assert find_kind(tmp_path / "rm")[0] == "rewardsteer"
    check_order_and_batches(tmp_path / "rm", transcribed(folder, head))


@pytest.mark.parametrize("values", [(3.0, 2.0), ([3.0], [2.0])])
@pytest.mark.parametrize("name", ["score", "value_head.0"])
def test_normalised_rewards_of_openrlhf(tmp_path, values, name):
    head = {f"{name}.weight": random(1, SIZE)}
    folder = publish(
        tmp_path / "m", head, architectures=["RewardModel"], normalize_reward=True, mean=values[0],
        std=values[1],
    )
    check_order_and_batches(folder, (transcribed(folder, head) - 3.0) / 2.0)


def test_costs_of_beaver_are_negated(tmp_path):
    head = {"score_head.weight": random(1, SIZE), "score_head.bias": random(1, seed=4)}
    more = {"normalizer.mean": torch.tensor([0.5]), "normalizer.var": torch.tensor([4.0]),
            "normalizer.count": torch.tensor(9)}
    folder = publish(tmp_path / "m", head | more, architectures=["LlamaModelForScore"],
                     do_normalize=True)
    costs = (transcribed(folder, head) - 0.5) / 2.0
    check_order_and_batches(folder, costs)
    check_order_and_batches(folder, -costs, negate=True)


def test_classifiers_are_negated(tmp_path):
    head = {"score.weight": random(1, SIZE)}
    folder = publish(tmp_path / "m", head, architectures=["LlamaForSequenceClassification"],
                     id2label={"0": "COST"}, family="gemma")
    assert find_kind(folder)[0] == "classifier"
    check_order_and_batches(folder, -transcribed(folder, head), negate=True)


def test_athene_scores_the_token_that_it_appends(tmp_path):
    head = {"v_head.weight": random(1, SIZE)}
    folder = publish(
        tmp_path / "m", head, architectures=["CustomAutoModelForSequenceClassification"]
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.cls_token = "<|end_header_id|>"
    tokenizer.save_pretrained(folder)
    model, expected = backbone(folder), []
    for row in ROWS:
        ids = [*chat_ids(folder, *row), tokenizer.cls_token_id]
        at = max(place for place, token in enumerate(ids) if token == tokenizer.cls_token_id)
        expected.append(apply(head, states(model, ids)[at]))
    scorer = check_order_and_batches(folder, np.array(expected))
    assert scorer.provenance()["reward_token"] == tokenizer.cls_token_id
    assert scorer.provenance()["kind"] == "value_head"
    with pytest.raises(MismatchError, match="scores whole texts"):
        require_tokens(scorer, "guides")
    tokenizer.cls_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"id 128003.*reward_token="):
        load_scorer(folder, device="cpu")


def test_starling_names_its_backbone_otherwise(tmp_path):
    head = {"v_head.weight": random(1, SIZE)}
    plain = publish(tmp_path / "plain", head, family="llama2", architectures=["LlamaForCausalLM"])
    folder = publish(tmp_path / "m", head, family="llama2", prefix=("model.", "transformer."),
                     architectures=["LlamaForRewards"])
    assert "transformer.norm.weight" in load_file(folder / "model.safetensors")
    check_order_and_batches(folder, transcribed(plain, head))


def test_backbones_saved_by_themselves(tmp_path):
    head = {"value_head.weight": random(1, SIZE)}
    plain = publish(tmp_path / "plain", head)
    folder = publish(tmp_path / "m", head, prefix=("model.", ""), architectures=["RewardModel"])
    assert "norm.weight" in load_file(folder / "model.safetensors")
    check_order_and_batches(folder, transcribed(plain, head))


@pytest.mark.parametrize(("name", "layer", "single", "several"), [
    ("LlamaRewardModel", "regression_head", "Human: {}\nAssistant: {}",
     "Human: a\nAssistant: b\nHuman: c\nAssistant: d"),
    ("EurusRewardModel", "regression_head", "[INST] {} [/INST] {}",
     "[INST] a [/INST] b [INST] c [/INST] d"),
    ("LlamaModelForScore", "score_head", "BEGINNING OF CONVERSATION: USER: {} ASSISTANT:{}",
     "BEGINNING OF CONVERSATION: USER: a ASSISTANT:b</s>USER: c ASSISTANT:d"),
])
def test_models_without_a_chat_template_write_their_own_text(
    tmp_path, name, layer, single, several
):
    head = {f"{layer}.weight": random(1, SIZE)}
    folder = publish(tmp_path / "m", head, architectures=[name])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    model, expected = backbone(folder), []
    for prompt, completion in ROWS:
        ids = tokenizer(single.format(prompt, completion))["input_ids"]
        expected.append(apply(head, states(model, ids)[-1]))
    scorer = check_order_and_batches(folder, np.array(expected))
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}]
    [before], [behind] = scorer.encode([talk], ["d"])
    assert before + behind == tokenizer(several)["input_ids"]


def test_rewards_in_bfloat16_are_computed_in_float32(tmp_path):
    head = {"v_head.summary.weight": random(1, SIZE).bfloat16(),
            "v_head.summary.bias": random(1, seed=3).bfloat16()}
    folder = publish(tmp_path / "m", head, architectures=["LlamaForCausalLM"])
    scorer = load_scorer(folder, device="cpu", dtype=torch.bfloat16)
    assert scorer.provenance()["dtype"] == "bfloat16"
    found = scorer.score(PROMPTS, COMPLETIONS)
    assert len(set(found)) == len(set(map(float, torch.tensor(found).float())))
    np.testing.assert_allclose(found, transcribed(folder, {
        name: value.float() for name, value in head.items()
    }), atol=0.05)


def test_wrong_forms_are_a_sentence(tmp_path):
    def refused(match, head, *, loaded=None, **config):
        folder = publish(tmp_path / "m", head, **config)
        with pytest.raises(CheckpointError, match=match):
            load_scorer(folder, device="cpu", **(loaded or {}))

    linear_head = {"v_head.weight": random(1, SIZE)}
    own = {"loaded": {"kind": "value_head"}}
    refused("heads found: score with 1, v_head with 1",
            linear_head | {"score.weight": random(1, SIZE)}, **own)
    refused("heads found: v_head with 3", {"v_head.weight": random(3, SIZE)}, **own)
    refused("heads found: none", {}, **own)
    refused("takes states of 16 numbers, the backbone gives 32", {"v_head.weight": random(1, 16)})
    refused("has no mean and std", linear_head, normalize_reward=True)
    refused("standard deviation of 0.0", linear_head, normalize_reward=True, mean=1, std=0)
    refused("no architecture 'internlm9'.*modeling_i.I", linear_head, model_type="internlm9",
            auto_map={"AutoModel": "modeling_i.I"}, architectures=["I"])
    refused("id 5000", linear_head, loaded={"reward_token": 5000})


def test_a_backbone_that_is_incomplete_is_never_drawn_anew(tmp_path):
    folder = publish(tmp_path / "m", {"v_head.weight": random(1, SIZE)})
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        load_scorer(folder, device="cpu")


def test_loading_does_not_say_that_the_head_is_new(tmp_path, caplog):
    folder = publish(tmp_path / "m", {"v_head.weight": random(1, SIZE)})
    load_scorer(folder, device="cpu")
    assert not [one for one in caplog.records if one.levelno >= 30]


def test_process_reward_models_are_not_taken_for_it(tmp_path):
    folder = publish(tmp_path / "m", {"v_head.summary.weight": random(1, SIZE)},
                     architectures=["Qwen2ForPrmModel"])
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForPrmModel"]
    assert find_kind(folder)[0] == "skywork_prm"


# --- OpenAssistant's Pythia -----------------------------------------------------------------------


def save_oasst(folder, **config):
    """As OpenAssistant's GPTNeoXRewardModel: ``gpt_neox`` and ``out_proj``, special turns."""
    tokenizer = character_tokenizer()
    tokenizer.add_special_tokens({
        "eos_token": "<|endoftext|>", "pad_token": "<|padding|>",
        "additional_special_tokens": ["<|prompter|>", "<|assistant|>"],
    })
    model = tiny_causal_lm("gpt_neox", vocab_size=len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["embed_out.weight"]
    head = {"out_proj.weight": random(1, SIZE), "out_proj.bias": random(1, seed=3)}
    save_file(weights | head, folder / "model.safetensors", metadata={"format": "pt"})
    known = json.loads((folder / "config.json").read_text()) | {
        "architectures": ["GPTNeoXRewardModel"], "model_type": "gpt_neox_reward_model",
    } | config
    (folder / "config.json").write_text(json.dumps(known))
    return folder


@torch.no_grad()
def pooled(folder, texts, pooling):
    """The published forward pass, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    about = json.loads((folder / "config.json").read_text())
    model = GPTNeoXModel(GPTNeoXConfig.from_dict(about | {"model_type": "gpt_neox"})).eval()
    model.load_state_dict({
        name.removeprefix("gpt_neox."): value for name, value in weights.items()
        if name.startswith("gpt_neox.")
    })
    found = []
    for text in texts:
        hidden = model(tokenizer(text, return_tensors="pt")["input_ids"]).last_hidden_state
        state = hidden.mean(dim=1) if pooling == "mean" else hidden[:, -1]
        found.append(float(linear(state, weights["out_proj.weight"], weights["out_proj.bias"])))
    return np.array(found)


@pytest.mark.parametrize("pooling", ["mean", "last", None])
def test_pythia_pools_as_its_configuration_says(tmp_path, pooling):
    folder = save_oasst(tmp_path / "m", pooling=pooling)
    texts = [
        f"<|prompter|>{prompt}<|endoftext|><|assistant|>{completion}<|endoftext|>"
        for prompt, completion in ROWS
    ]
    expected = pooled(folder, texts, pooling)
    assert np.ptp(expected) > 1e-2
    assert find_kind(folder)[0] == "value_head"
    scorer = check_order_and_batches(folder, expected)
    assert scorer.provenance().get("pooling") == ("mean" if pooling == "mean" else None)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
             {"role": "user", "content": "c"}]
    text = ("<|prompter|>a<|endoftext|><|assistant|>b<|endoftext|><|prompter|>c<|endoftext|>"
            "<|assistant|>d")
    for closed, end in ((True, "<|endoftext|>"), (False, "")):
        np.testing.assert_allclose(
            scorer.score([turns], ["d"], closed=closed), pooled(folder, [text + end], pooling),
            atol=1e-5,
        )
    if pooling == "mean":
        with pytest.raises(MismatchError, match="scores whole texts"):
            require_tokens(scorer, "guides")
    else:
        assert require_tokens(scorer, "guides") is scorer


def test_another_pooling_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"pooling mean or last .* got 'max'"):
        load_scorer(save_oasst(tmp_path / "m", pooling="max"), device="cpu")
