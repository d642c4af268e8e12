"""Models that compare two responses, against plain transcriptions of their published scoring."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rewardsteer import RewardModel
from rewardsteer.cli.main import app
from rewardsteer.data.template import Template
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.methods import METHODS
from rewardsteer.errors import CheckpointError, ConfigError, DataError, MismatchError
from rewardsteer.evaluation.reward_benchmarks.run import evaluate_benchmark
from rewardsteer.models.kinds import load_scorer
from rewardsteer.records import Message
from tests.chat import save_policy
from tests.models.kinds.published import (
    COMPLETIONS,
    PROMPTS,
    answered_preference,
    pair_encoder_logit,
    save_pair_encoder,
    save_seq2seq,
    written_preference,
)

OTHERS = ["15", "nobody here", "c and d", "It is 15, because 7+8 is 15.", "zzz"]
DIALOGUE = [("user", "Hi"), ("assistant", "Hello."), ("user", "What is 2+2?")]
MESSAGES = [Message(role=role, content=text) for role, text in DIALOGUE]


def load(folder, kind):
    return load_scorer(folder, kind=kind, device="cpu", pairs=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("pairs")
    return {
        "pairrm": save_pair_encoder(place / "pairrm"),
        "rlhflow_pair": save_policy(place / "rlhflow", "llama3"),
        "steamshp": save_seq2seq(place / "steamshp"),
    }


@pytest.fixture(params=["pairrm", "rlhflow_pair", "steamshp"])
def kind(request):
    return request.param


def both_orders(logits):
    """Mean of the probabilities in both orders, from two logits of the response shown first."""
    first, second = (1 / (1 + np.exp(-np.array(one))) for one in logits)
    return (first + 1 - second) / 2


def transcribed(folder, kind):
    rows = list(zip(PROMPTS, COMPLETIONS, OTHERS, strict=True))
    if kind == "rlhflow_pair":
        return np.array([
            answered_preference(folder, [{"role": "user", "content": prompt}], (one, other))
            for prompt, one, other in rows
        ])
    if kind == "steamshp":
        return np.array([
            written_preference(folder, prompt, (one, other)) for prompt, one, other in rows
        ])
    return both_orders([
        [pair_encoder_logit(folder, prompt, *pair[::step]) for prompt, *pair in rows]
        for step in (1, -1)
    ])


def test_preferences_equal_the_published_scoring(folders, kind):
    expected = transcribed(folders[kind], kind)
    scorer = load(folders[kind], kind)
    for size in (1, 2, 16):
        found = scorer.preferences(PROMPTS, COMPLETIONS, OTHERS, batch_size=size)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-5)
    turned = scorer.preferences(PROMPTS[::-1], COMPLETIONS[::-1], OTHERS[::-1], batch_size=3)
    np.testing.assert_allclose(turned[::-1], expected, atol=1e-5)
    swapped = scorer.preferences(PROMPTS, OTHERS, COMPLETIONS)
    np.testing.assert_allclose(swapped, 1 - expected, atol=1e-5)
    # They tell pairs apart, so that a wrong position would be seen.
    assert np.ptp(expected) > 1e-2
    orders = scorer.orders(PROMPTS, COMPLETIONS, OTHERS)
    assert np.abs(orders[:, 0] - orders[:, 1]).max() > 1e-2


def test_pairrm_prefers_what_the_published_difference_of_logits_prefers(folders):
    found = load(folders["pairrm"], None).preferences(PROMPTS, COMPLETIONS, OTHERS)
    margins = [
        pair_encoder_logit(folders["pairrm"], prompt, one, other)
        - pair_encoder_logit(folders["pairrm"], prompt, other, one)
        for prompt, one, other in zip(PROMPTS, COMPLETIONS, OTHERS, strict=True)
    ]
    assert ((found > 0.5) == (np.array(margins) > 0)).all()
    assert len({one > 0 for one in margins}) == 2


def test_conversations_are_written_as_published(folders):
    messages = [{"role": role, "content": text} for role, text in DIALOGUE]
    found = load(folders["rlhflow_pair"], "rlhflow_pair").preferences([MESSAGES], ["4"], ["Five."])
    expected = answered_preference(folders["rlhflow_pair"], messages, ("4", "Five."))
    assert found[0] == pytest.approx(expected, abs=1e-5)

    source = ("Finish the following coversation in each i-th turn by filling in <Response i> with "
              "your response.USER: Hi\nAssistant: <Response 1>\nUSER: What is 2+2?\nAssistant: "
              "<Response 2>")
    texts = [f"<Response 1>: Hello.\n<Response 2>: {one}" for one in ("4", "Five.")]
    logits = [pair_encoder_logit(folders["pairrm"], source, *texts[::step]) for step in (1, -1)]
    found = load(folders["pairrm"], None).preferences([MESSAGES], ["4"], ["Five."])
    assert found[0] == pytest.approx(both_orders(logits), abs=1e-5)


def test_one_user_turn_is_a_question(folders, kind):
    scorer = load(folders[kind], kind)
    [found] = scorer.preferences([MESSAGES[2:]], ["4"], ["5"])
    assert found == pytest.approx(scorer.preferences(["What is 2+2?"], ["4"], ["5"])[0], abs=1e-6)
    system = Message(role="system", content="Be brief.")
    with pytest.raises(DataError, match=r"Row 1: a model of pairs reads .* turns system, user"):
        scorer.preferences([[system, *MESSAGES[2:]]], ["4"], ["5"])


def test_several_tasks_count_their_mean(tmp_path):
    folder = save_pair_encoder(tmp_path / "m", tasks=3)
    found = load(folder, None).preferences(["What?"], ["a"], ["b c"])
    logits = [pair_encoder_logit(folder, "What?", *pair) for pair in (("a", "b c"), ("b c", "a"))]
    assert found[0] == pytest.approx(both_orders(logits), abs=1e-5)


def test_pairrm_is_recognised_and_a_language_model_is_not(folders):
    assert load(folders["pairrm"], None).kind == "pairrm"
    with pytest.raises(CheckpointError, match="rlhflow_pair"):
        load(folders["rlhflow_pair"], None)


def test_pairrm_in_the_form_of_llm_blender_is_refused_by_name(tmp_path):
    folder = tmp_path / "PairRM"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({
        "ranker_type": "pairranker", "model_type": "deberta",
        "model_name": "microsoft/deberta-v3-large", "source_maxlength": 1224,
        "candidate_maxlength": 412, "n_tasks": 1,
    }))
    with pytest.raises(CheckpointError, match=r"PairRM in the form of .* llm-blender/PairRM-hf"):
        load(folder, None)


def test_steamshp_reads_one_context_of_its_length(folders, tmp_path):
    scorer = load(folders["steamshp"], "steamshp")
    with pytest.raises(DataError, match=r"Row 1: .* a conversation of 3 turns"):
        scorer.preferences([MESSAGES], ["4"], ["5"])
    with pytest.raises(DataError, match=r"Row 2 has \d+ tokens, but .* reads at most 512"):
        scorer.preferences(["a", "b" * 500], ["4", "4"], ["5", "5"])
    longer = load_scorer(
        folders["steamshp"], kind="steamshp", device="cpu", pairs=True, length=999
    )
    assert 0 < longer.preferences(["b" * 500], ["4"], ["5"])[0] < 1
    with pytest.raises(CheckpointError, match=r"Expected a T5 model .* LlamaForCausalLM"):
        load(folders["rlhflow_pair"], "steamshp")
    with pytest.raises(CheckpointError, match=r"steamshp, .* got T5ForCond.*--kind"):
        load(folders["steamshp"], None)


# --- where a reward is expected -------------------------------------------------------------------


def test_no_reward_is_given_and_the_sentence_says_what_works(folders, kind, tmp_path):
    with pytest.raises(MismatchError, match=r"compares two responses .* evaluate benchmark"):
        load_scorer(folders[kind], kind=kind, device="cpu")
    model = RewardModel.from_pretrained(folders[kind], kind=kind, device="cpu")
    for ask in (model.score, model.rank):
        with pytest.raises(MismatchError, match=rf"{kind}. compares two responses"):
            ask("What is 2+2?", ["4", "5"])
    with pytest.raises(MismatchError, match=r"RewardModel.preference"):
        model.step_scores("What is 2+2?", ["2+2", "4"])
    with pytest.raises(MismatchError, match="compares two responses"):
        check_scorer("best_of_n", METHODS.get("best_of_n"), model.scorer)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    done = CliRunner().invoke(app, [
        "score", "--reward-model", str(folders[kind]), "--kind", kind, "--device", "cpu",
        "--input", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out.jsonl"),
    ])
    assert done.exit_code == 2
    assert "compares two responses" in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out.jsonl").exists()


def test_the_python_interface_takes_texts_and_lists(folders, kind):
    model = RewardModel.from_pretrained(folders[kind], kind=kind, device="cpu")
    one = model.preference("What is 2+2?", "4", "Five.")
    assert isinstance(one, float)
    assert model.preference("What is 2+2?", "Five.", "4") == pytest.approx(1 - one, abs=1e-5)
    several = model.preference("What is 2+2?", ["4", "4"], ["Five.", "4"])
    np.testing.assert_allclose(several, [one, 0.5], atol=1e-5)
    with pytest.raises(DataError, match="2 prompts and 1 completions"):
        model.preference(["a", "b"], ["4", "4"], ["5"])


def test_a_reward_model_has_no_preferences(tmp_path):
    model = RewardModel.from_pretrained(
        save_policy(tmp_path / "m", "llama3"), kind="nemotron", device="cpu"
    )
    with pytest.raises(MismatchError, match=r"nemotron. gives each a reward; use score"):
        model.preference("a", "b", "c")


# --- benchmarks -----------------------------------------------------------------------------------


def rows_of_pairs(file):
    file.write_text("".join(
        json.dumps({"id": number, "prompt": prompt, "chosen": one, "rejected": other,
                    "subset": "own"}) + "\n"
        for number, (prompt, one, other) in enumerate(
            zip(PROMPTS, COMPLETIONS, OTHERS, strict=True))
    ))
    return file


def test_pairs_of_a_benchmark_are_judged(folders, kind, tmp_path):
    rows = rows_of_pairs(tmp_path / "pairs.jsonl")
    expected = transcribed(folders[kind], kind)
    done = CliRunner().invoke(app, [
        "evaluate", "benchmark", f"rewardbench={rows}", "--reward-model", str(folders[kind]),
        "--kind", kind, "--device", "cpu", "--out", str(tmp_path / "out"),
    ])
    assert done.exit_code == 0, done.output
    [file] = (tmp_path / "out" / "scores").iterdir()
    scores = [json.loads(line)["scores"] for line in file.read_text().splitlines()]
    np.testing.assert_allclose(scores, np.stack([expected, 1 - expected], axis=1), atol=1e-5)
    scorer = load(folders[kind], kind)
    found = evaluate_benchmark(scorer, "rewardbench", rows)
    assert found["own"]["score"] == pytest.approx(np.mean(expected > 0.5))


def test_benchmarks_of_more_than_two_responses_are_refused_before_work(folders, tmp_path):
    scorer = load(folders["pairrm"], None)
    (tmp_path / "four.jsonl").write_text(json.dumps({
        "id": "1", "prompt": "a", "chosen": ["b"], "rejected": ["c", "d", "e"], "subset": "Math",
        "num_correct": 1,
    }) + "\n")
    with pytest.raises(MismatchError, match=r"4 responses at once. Take rewardbench, judgebench"):
        evaluate_benchmark(scorer, "rewardbench2", tmp_path / "four.jsonl")
    (tmp_path / "steps.jsonl").write_text(json.dumps({
        "id": "gsm8k-0", "problem": "a", "steps": ["b", "c"], "label": -1,
        "final_answer_correct": True,
    }) + "\n")
    with pytest.raises(MismatchError, match="asks about steps"):
        evaluate_benchmark(scorer, "processbench", tmp_path / "steps.jsonl")


# --- what cannot be read --------------------------------------------------------------------------


def test_pairs_that_are_too_long_are_refused(folders):
    scorer = load(folders["rlhflow_pair"], "rlhflow_pair")
    with pytest.raises(DataError, match=r"Row 2 has \d+ tokens, but .* reads at most \d+"):
        scorer.preferences(["a", "b"], ["c", "d" * 2000], ["e", "f"])
    scorer = load_scorer(
        folders["pairrm"], device="cpu", pairs=True, source_length=20, candidate_length=10
    )
    assert 0 < scorer.preferences(["a" * 17], ["b" * 7], ["c" * 7])[0] < 1
    for prompt, response in (("a" * 18, "b"), ("a" * 17, "b" * 8)):
        with pytest.raises(DataError, match=r"Row 1: the prompt has .* source_length="):
            scorer.preferences([prompt], [response], ["c"])
    # A short prompt leaves its tokens to the responses.
    assert 0 < scorer.preferences(["a"], ["b" * 15], ["c"])[0] < 1


def test_marks_within_a_text_are_refused(folders):
    with pytest.raises(DataError, match=r"Row 1: expected each of the marks .*<\|candidate1\|>"):
        load(folders["pairrm"], None).preferences(["a"], ["b <|candidate1|> c"], ["d"])


def test_damaged_folders_are_refused(tmp_path, folders):
    with pytest.raises(CheckpointError, match="cand1_prefix_id"):
        load(save_pair_encoder(tmp_path / "m", cand1_prefix_id=None), None)
    with pytest.raises(CheckpointError, match="as PairRM has them"):
        load(folders["rlhflow_pair"], "pairrm")
    plain = save_policy(tmp_path / "plain", "llama3")
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    about = json.loads((plain / "tokenizer_config.json").read_text())
    about.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="no chat template"):
        load(plain, "rlhflow_pair")
    with pytest.raises(ConfigError, match="form it was published"):
        load_scorer(folders["pairrm"], device="cpu", pairs=True, template=Template())
