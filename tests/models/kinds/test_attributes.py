"""Several outputs: combined as asked or as published, shown by name, refused where unknown."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import linear
from typer.testing import CliRunner

from rewardsteer import RewardModel
from rewardsteer.cli.main import app
from rewardsteer.errors import CheckpointError, ConfigError, MismatchError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.recognition import find_kind
from rewardsteer.models.text_scorer import TextScorer, require_tokens
from tests.chat import save_classifier
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

FIVE = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
NINE = ["quality", "toxicity", "humor", "creativity", *FIVE]


def make(folder, names, **config):
    head = {"score.weight": random(len(names), SIZE)}
    return publish(
        folder, head, architectures=["LlamaForSequenceClassification"],
        id2label={str(at): name for at, name in enumerate(names)}, **config,
    ), head["score.weight"]


def outputs(folder, weight):
    """All outputs ``[N, K]`` at each row's last token, one row at a time."""
    model = backbone(folder)
    rows = zip(PROMPTS, COMPLETIONS, strict=True)
    return np.stack([
        linear(states(model, chat_ids(folder, *row))[-1], weight).numpy() for row in rows
    ])


@pytest.mark.parametrize(("names", "options", "weights"), [
    (["a", "b", "c"], {"attribute": "b"}, [0, 1, 0]),
    (["a", "b", "c"], {"weights": {"a": 2.0, "c": -1}}, [2, 0, -1]),
    (["a", "b", "c"], {"weights": [0.5, 1, 2]}, [0.5, 1, 2]),
    (["no", "yes"], {}, [-1, 1]),
    (["no", "yes"], {"attribute": "yes"}, [0, 1]),
    (FIVE, {}, [0.3, 0.74, 0.46, 0.47, -0.33]),
    (NINE, {}, [0, 0, 0, 0, 0.3, 0.74, 0.46, 0.47, -0.33]),
    ([f"helpsteer-{name}" for name in FIVE[::-1]], {}, [-0.33, 0.47, 0.46, 0.74, 0.3]),
])
def test_rewards_are_weighted_sums(tmp_path, names, options, weights):
    folder, weight = make(tmp_path / "m", names)
    assert find_kind(folder)[0] == "attributes"
    expected = outputs(folder, weight)
    scorer = check_order_and_batches(folder, expected @ np.array(weights), **options)
    shown = scorer.attributes(PROMPTS, COMPLETIONS, batch_size=2)
    assert list(shown) == names
    np.testing.assert_allclose(np.stack(list(shown.values()), axis=1), expected, atol=1e-5)
    told = scorer.provenance()["attribute_weights"]
    np.testing.assert_allclose([told[name] for name in names], weights, rtol=1e-6)
    steps = [["a", "b"], ["c"], ["d", "e", "f"], ["g"], ["h"]]
    for ours, theirs in zip(scorer.step_scores(PROMPTS, steps),
                            TextScorer.step_scores(scorer, PROMPTS, steps), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert require_tokens(scorer, "guides") is scorer


@pytest.mark.parametrize(("names", "options", "said"), [
    (["a", "b", "c"], {}, r"3 outputs \(a, b, c\).* attribute=NAME or weights="),
    (FIVE[:4], {}, "4 outputs"),
    (["a", "b", "c"], {"attribute": "d"}, "no attribute d; it has a, b, c"),
    (["a", "b", "c"], {"weights": {"a": 1, "e": 2}}, "no attribute e"),
    (["a", "b", "c"], {"weights": {}}, "it has a, b, c"),
    (["a", "b", "c"], {"weights": [1, 2]}, "one number for each of a, b, c"),
    (["a", "b", "c"], {"weights": 5}, "one number for each of a, b, c"),
    (["a", "b", "c"], {"weights": {"a": "x"}}, "one number for each of a, b, c"),
    (["a", "b", "c"], {"weights": [1, 2, math.nan]}, "one number for each of a, b, c"),
    (["a", "b", "c"], {"weights": [1, 2, 3], "attribute": "a"}, "not both"),
])
def test_unknown_combinations_are_refused(tmp_path, names, options, said):
    folder, _ = make(tmp_path / "m", names)
    with pytest.raises(ConfigError, match=said):
        load_scorer(folder, device="cpu", **options)


def test_labels_that_do_not_fit_the_head_are_refused(tmp_path):
    folder = publish(
        tmp_path / "m", {"score.weight": random(3, SIZE)},
        architectures=["LlamaForSequenceClassification"],
        id2label={str(at): name for at, name in enumerate("abcd")},
    )
    with pytest.raises(CheckpointError, match="has 3 outputs, its configuration names 4"):
        load_scorer(folder, device="cpu", attribute="a")


# --- ArmoRM ----------------------------------------------------------------------------------


def armo(folder, *, objectives=19, family="llama3", model_type="llama", **config):
    head = {
        "regression_layer.weight": random(objectives, SIZE, seed=1),
        "reward_transform_matrix": torch.eye(objectives) + random(objectives, objectives, seed=2),
        "gating.logit_scale": torch.tensor([1.5]),
    }
    sizes = [SIZE, 16, 16, 16, objectives]
    for at in range(4):
        head[f"gating.layers.{2 * at}.weight"] = random(sizes[at + 1], sizes[at], seed=3 + at) * 3
        head[f"gating.layers.{2 * at}.bias"] = random(sizes[at + 1], seed=30 + at)
    return publish(
        folder, head, family=family, architectures=["LlamaForRewardModelWithGating"],
        auto_map={"AutoModelForSequenceClassification": "modeling_custom.X"},
        gating_temperature=2, model_type=model_type, **config,
    ), head


def armo_scores(folder, head, tokenizer, prompts=PROMPTS, completions=COMPLETIONS):
    """Attributes ``[N, K]`` and scores ``[N]``, transcribed."""
    opening = tokenizer("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                        add_special_tokens=False)["input_ids"]
    model, attributes, scores = backbone(folder), [], []
    for row in zip(prompts, completions, strict=True):
        ids = chat_ids(folder, *row)
        hidden = states(model, ids)
        at = max(j for j in range(len(ids)) if ids[j : j + len(opening)] == opening)
        gate = hidden[at]
        for layer in range(4):
            gate = linear(gate.relu() if layer else gate, head[f"gating.layers.{2 * layer}.weight"],
                          head[f"gating.layers.{2 * layer}.bias"])
        gate = torch.softmax(gate / 2, dim=0) * 1.5
        rewards = linear(hidden[-1], head["regression_layer.weight"])
        attributes.append(rewards.numpy())
        scores.append(float((gate * (rewards @ head["reward_transform_matrix"])).sum()))
    return np.stack(attributes), np.array(scores)


@pytest.mark.parametrize("objectives", [19, 4])
def test_armorm_is_gated_by_the_end_of_the_prompt(tmp_path, objectives):
    folder, head = armo(tmp_path / "m", objectives=objectives)
    assert find_kind(folder)[0] == "armorm"
    tokenizer = load_scorer(folder, device="cpu").tokenizer
    attributes, scores = armo_scores(folder, head, tokenizer)
    scorer = check_order_and_batches(folder, scores)
    shown = scorer.attributes(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(np.stack(list(shown.values()), axis=1), attributes, atol=1e-5)
    assert len(shown) == objectives
    if objectives == 19:
        assert list(shown)[4] == "helpsteer-verbosity"
        assert list(shown)[-1] == "code-readability"
    assert not scorer.reads_tokens
    assert len(scorer.step_scores(["a"], [["b", "c"]])[0]) == 2


def test_armorm_is_gated_by_the_last_turn_of_a_conversation(tmp_path):
    folder, head = armo(tmp_path / "m")
    earlier = [{"role": "user", "content": "7+8?"}, {"role": "assistant", "content": "15, he said"}]
    prompts = [[*earlier, {"role": "user", "content": "Why?"}]]
    scorer = load_scorer(folder, device="cpu")
    _, scores = armo_scores(folder, head, scorer.tokenizer, prompts, ["so"])
    np.testing.assert_allclose(scorer.score(prompts, ["so"]), scores, atol=1e-5)


def test_armorm_without_an_opened_turn_is_a_sentence(tmp_path):
    from rewardsteer.data.template import Template
    from rewardsteer.errors import DataError

    folder, _ = armo(tmp_path / "m")
    scorer = load_scorer(folder, device="cpu", template=Template(kind="text"))
    with pytest.raises(DataError, match="Row 1 has no opened assistant turn"):
        scorer.score(["a"], ["b"])


def test_armorm_on_another_backbone_is_a_sentence(tmp_path):
    folder, _ = armo(tmp_path / "m", model_type="mistral")
    with pytest.raises(CheckpointError, match="on a Llama or Gemma 2"):
        load_scorer(folder, device="cpu")


# --- URM -------------------------------------------------------------------------------------


def test_urm_mixes_means_by_a_gate_on_the_same_token(tmp_path):
    head = {"score.weight": random(10, SIZE)}
    sizes = [SIZE, SIZE, SIZE, 5]
    for at in range(3):
        head[f"weights.fc.{2 * at}.weight"] = random(sizes[at + 1], sizes[at], seed=at + 1) / 3
        head[f"weights.fc.{2 * at}.bias"] = random(sizes[at + 1], seed=at + 9)
    folder = publish(
        tmp_path / "m", head, architectures=["LlamaForSequenceClassificationWithNormal_Weights"],
        id2label={str(at): f"LABEL_{at}" for at in range(10)},
    )
    assert find_kind(folder)[0] == "urm"
    model, means, expected = backbone(folder), [], []
    for row in zip(PROMPTS, COMPLETIONS, strict=True):
        state = states(model, chat_ids(folder, *row))[-1]
        gate = state
        for at in range(3):
            gate = linear(torch.nn.functional.selu(gate) if at else gate,
                          head[f"weights.fc.{2 * at}.weight"], head[f"weights.fc.{2 * at}.bias"])
        pairs = linear(state, head["score.weight"]).view(5, 2)
        means.append(pairs[:, 0].numpy())
        expected.append(float((pairs[:, 0] * gate).sum()))
    scorer = check_order_and_batches(folder, np.array(expected))
    shown = scorer.attributes(PROMPTS, COMPLETIONS)
    assert list(shown) == ["LABEL_0", "LABEL_2", "LABEL_4", "LABEL_6", "LABEL_8"]
    np.testing.assert_allclose(np.stack(list(shown.values()), axis=1), means, atol=1e-5)
    assert scorer.provenance()["aggregation"] == "gate"
    assert require_tokens(scorer, "guides") is scorer
    steps = [["a", "b"], ["c"], ["d", "e", "f"], ["g"], ["h"]]
    for ours, theirs in zip(scorer.step_scores(PROMPTS, steps),
                            TextScorer.step_scores(scorer, PROMPTS, steps), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    with pytest.raises(CheckpointError, match="more than linear layers with ReLU"):
        RewardModel(scorer).save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="Expected URM's parts"):
        load_scorer(save_classifier(tmp_path / "other", "gemma"), kind="urm")


# --- where users ask for them ----------------------------------------------------------------


def test_attributes_from_python(tmp_path):
    folder, weight = make(tmp_path / "m", ["a", "b", "c"])
    expected = outputs(folder, weight)
    rm = RewardModel.from_pretrained(folder, device="cpu", attribute="b")
    assert rm.score(PROMPTS[0], COMPLETIONS[0]) == pytest.approx(expected[0, 1], abs=1e-5)
    one = rm.attributes(PROMPTS[0], COMPLETIONS[0])
    assert one == pytest.approx(dict(zip("abc", map(float, expected[0]), strict=True)), abs=1e-5)
    several = rm.attributes(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(several["c"], expected[:, 2], atol=1e-5)
    plain = RewardModel.from_pretrained(save_classifier(tmp_path / "one", "gemma"), device="cpu")
    with pytest.raises(MismatchError, match=r"\(classifier\) has one reward and no attributes"):
        plain.attributes("a", "b")


def test_saved_models_keep_the_chosen_attribute(tmp_path):
    folder, weight = make(tmp_path / "m", ["a", "b", "c"])
    rm = RewardModel.from_pretrained(folder, device="cpu", weights=[1, 0, -1])
    rm.save_pretrained(tmp_path / "saved")
    expected = outputs(folder, weight) @ np.array([1, 0, -1])
    check_order_and_batches(tmp_path / "saved", expected)


@pytest.mark.parametrize("kind", ["attributes", "armorm"])
def test_attributes_from_the_command_line(tmp_path, kind):
    """Reward models that score texts alone write rewards, and refuse values per token."""
    given = ["--kind-option", "weights={a: 1, c: -2}"] if kind == "attributes" else []
    if kind == "attributes":
        folder, weight = make(tmp_path / "m", ["a", "b", "c"])
        expected = outputs(folder, weight) @ np.array([1, 0, -2])
    else:
        folder, head = armo(tmp_path / "m")
        expected = armo_scores(folder, head, load_scorer(folder, device="cpu").tokenizer)[1]
    rows = [{"prompt": p, "completion": c} for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    long = {"prompt": "a", "completion": "b" * 600}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, long]))
    command = ["score", "--reward-model", str(folder), "--input", str(tmp_path / "in.jsonl"),
               "--output", str(tmp_path / "out.jsonl"), "--device", "cpu", *given]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["reward"] for row in found[:-1]], expected, atol=1e-5)
    assert found[-1]["reward"] is None
    assert "at most 512" in found[-1]["skipped"]
    refused = CliRunner().invoke(app, [*command, "--tokens", "--overwrite"])
    assert (refused.exit_code == 0) == (kind == "attributes")
    if kind == "armorm":
        assert "(armorm) scores whole texts" in " ".join(refused.stderr.split())


def test_preferences_of_models_that_score_texts(tmp_path):
    folder, _ = armo(tmp_path / "m")
    pairs = [{"prompt": p, "chosen": c, "rejected": c[::-1] + "!"}
             for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    done = CliRunner().invoke(app, [
        "evaluate", "preference", "--reward-model", str(folder), "--device", "cpu",
        "--input", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out"),
    ])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    scorer = load_scorer(folder, device="cpu")
    rewards = [scorer.score(PROMPTS, [row[side] for row in pairs]) for side in
               ("chosen", "rejected")]
    assert figures["all"]["accuracy"] == pytest.approx((rewards[0] > rewards[1]).mean())
    assert figures["provenance"]["kind"] == "armorm"


@pytest.mark.parametrize(("words", "said"), [
    (["--kind-option", "negate"], "Expected --kind-option name=value"),
    (["--kind-option", "weights={a"], "no valid YAML"),
    (["--kind", "nothing"], "Unknown kind of reward model 'nothing'"),
    (["--kind", "farma", "--engine", "ray"], "The engine ray loads folders of rewardsteer"),
])
def test_wrong_options_are_a_sentence(tmp_path, words, said):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    done = CliRunner().invoke(app, [
        "score", "--reward-model", str(tmp_path), "--input", str(tmp_path / "in.jsonl"),
        "--output", str(tmp_path / "out.jsonl"), *words,
    ])
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
