"""Scoring and ranking through the public `RewardModel`."""

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rewardsteer import RewardModel, evaluate
from rewardsteer.errors import CheckpointError, ConfigError, DataError, OutputError
from rewardsteer.models.kinds import load_scorer
from tests.fakes import character_tokenizer


@pytest.fixture(scope="module")
def bt(folders):
    return RewardModel.from_pretrained(folders / "bt")


def by_transformers(folder, text):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    ids = character_tokenizer()(text, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        return float(model(ids).logits[0, 0])


def test_one_text_is_a_float_and_what_transformers_gives(bt, folders):
    reward = bt.score("2+2=", "4")
    assert isinstance(reward, float)
    assert reward == pytest.approx(by_transformers(folders / "bt", "2+2=4"), abs=1e-5)


@pytest.mark.parametrize("form", [
    lambda rm, prompts, texts: rm.score(prompts, texts),
    lambda rm, prompts, texts: rm.score(datasets.Dataset.from_dict(
        {"prompt": prompts, "completion": texts}
    )),
    lambda rm, prompts, texts: np.array(
        [rm.score(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    ),
    lambda rm, prompts, texts: np.concatenate(
        [rm.score(prompt, [text]) for prompt, text in zip(prompts, texts, strict=True)]
    ),
])
def test_all_forms_give_the_same_rewards(bt, form):
    prompts, texts = ["2+2=", "1+1=", "9"], ["4", "two", "nine more"]
    known = load_scorer(bt.scorer.name).score(prompts, texts)
    assert form(bt, prompts, texts) == pytest.approx(known, abs=1e-5)


def test_one_prompt_may_be_a_list_of_one(bt):
    assert bt.score(["2+2="], ["4"]).shape == (1,)
    assert bt.score("2+2=", []).shape == (0,)


def test_conversations(bt):
    talk = [{"role": "user", "content": "2+2="}, {"role": "assistant", "content": "4"}]
    alone = bt.score(talk)
    assert isinstance(alone, float)
    assert bt.score(talk[:1], "4") == pytest.approx(alone, abs=1e-6)
    assert bt.score([talk, talk]) == pytest.approx([alone, alone], abs=1e-6)


def test_ranking_is_best_first(bt):
    texts = ["4", "5", "four", "?"]
    ranked = bt.rank("2+2=", texts)
    rewards = bt.score("2+2=", texts)
    assert [one.index for one in ranked] == list(np.argsort(-rewards))
    assert [one.completion for one in ranked] == [texts[one.index] for one in ranked]
    assert [one.score for one in ranked] == pytest.approx(sorted(rewards, reverse=True))


def test_token_scores_end_with_the_reward(bt):
    scores = bt.token_scores("2+2=", "four", goal=bt.goal_state())
    assert scores.tokens == ["f", "o", "u", "r"]
    assert scores.rewards[-1] == pytest.approx(bt.score("2+2=", "four"), abs=1e-5)
    assert scores.rewards[1] == pytest.approx(bt.score("2+2=", "fo"), abs=1e-5)
    assert scores.similarities.shape == (4,)
    assert bt.token_scores("2+2=", "four").similarities is None


def test_saved_and_loaded_it_scores_the_same(bt, tmp_path):
    again = RewardModel.from_pretrained(bt.save_pretrained(tmp_path / "copy"))
    assert again.score("2+2=", "4") == pytest.approx(bt.score("2+2=", "4"), abs=1e-6)
    assert again.default_method() == bt.default_method() == "args"


@pytest.mark.parametrize(("name", "method"), [
    ("bt", "args"), ("farma", "farma"), ("pargs", "pargs"),
])
def test_the_default_method(folders, name, method):
    model = RewardModel.from_pretrained(folders / name)
    assert model.default_method() == method
    assert name in repr(model)


def test_inside_generate_of_transformers(folders):
    from transformers import AutoModelForCausalLM

    rm = RewardModel.from_pretrained(folders / "farma")
    policy = AutoModelForCausalLM.from_pretrained(folders / "policy").eval()
    ids = torch.tensor([character_tokenizer()("2+2=").input_ids])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 2}
    mask = torch.ones_like(ids)
    plain = policy.generate(ids, attention_mask=mask, **options)
    guided = policy.generate(
        ids, attention_mask=mask, **options,
        logits_processor=[rm.logits_processor(weight=5.0, attention_mask=mask)],
    )
    off = policy.generate(
        ids, attention_mask=mask, **options,
        logits_processor=[rm.logits_processor(weight=0.0, attention_mask=mask)],
    )
    assert off.tolist() == plain.tolist()
    assert guided.tolist() != plain.tolist()


def test_a_reward_function_for_trl(bt):
    function = bt.reward_function(name="bt")
    assert function.__name__ == "bt"
    assert function(prompts=["2+2="], completions=["4"]) == pytest.approx([bt.score("2+2=", "4")])


@pytest.mark.parametrize(("arguments", "message"), [
    ((["a", "b"], "c"), "got list"),
    ((["a"], ["b", "c"]), "got 1 prompts and 2 completions"),
    ((["a"], [3]), r"Row 1: .* as completion, .*; got a number \(3\)"),
    ((["a", "b"], ["c", None]), "Row 2: .* as completion, .*; got null"),
    (({"a"}, ["c"]), "got set"),
    ((["a"], {"text": "c"}), "got dict"),
    (("text alone",), "got str"),
    (([{"role": "user", "content": "a"}],), "its turns are user"),
    (([{"role": "assistant", "content": "a"}],), "its turns are assistant"),
    (("a", "half \ud83d"), r"completion holds half of a surrogate pair \(\\ud83d\)"),
    (([{"role": "user", "content": "\ud83d"}], "a"), "prompt holds half of a surrogate pair"),
    (([{"role": "user"}, {"role": "assistant", "content": "b"}],), "there is no 'content'"),
    (([],), "got list"),
    ((5, "b"), "got int"),
])
def test_other_forms_are_refused_in_a_sentence(bt, arguments, message):
    with pytest.raises(DataError, match=message):
        bt.score(*arguments)


def test_a_single_message_is_a_completion(bt):
    answer = {"role": "assistant", "content": "4"}
    alone = bt.score("2+2=", [answer])
    assert bt.score("2+2=", answer) == pytest.approx(alone)
    [best] = bt.rank("2+2=", answer)
    assert (best.index, best.completion) == (0, answer)
    assert best.score == pytest.approx(alone)


@pytest.mark.parametrize("call", [
    lambda rm: rm.rank("a", None), lambda rm: rm.rank("a", {"b", "c"}),
    lambda rm: rm.step_scores("a", {"b": 1}), lambda rm: rm.step_scores("a", ["\ud83d"]),
])
def test_what_has_no_order_or_is_no_text_is_refused(bt, call):
    with pytest.raises(DataError):
        call(bt)


@pytest.mark.parametrize("size", [0, -1, 1.5, "4", True])
def test_batch_sizes_are_whole_numbers(bt, size):
    for call in (bt.score, bt.rank):
        with pytest.raises(ConfigError, match=f"batch_size= .* got {size!r}"):
            call("a", ["b", "c"], batch_size=size)
    with pytest.raises(ConfigError, match="batch_size="):
        evaluate(bt, [{"prompt": "a", "chosen": "b", "rejected": "c"}], batch_size=size)


@pytest.mark.parametrize("call", ["token_scores", "inspect"])
def test_one_completion_is_read_token_by_token(bt, call):
    one = getattr(bt, call)(["2+2="], ["4"])
    np.testing.assert_allclose(one.rewards, getattr(bt, call)("2+2=", "4").rewards)
    for prompts in ([], ["a", "b"]):
        with pytest.raises(DataError, match=f"one completion, got {len(prompts)} of them"):
            getattr(bt, call)(prompts, prompts)
    with pytest.raises(ConfigError, match=r"Expected a goal state, .* got str"):
        getattr(bt, call)("a", "b", goal="preferred")


def test_saving_keeps_what_is_there(bt, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(OutputError, match=r"not empty.*overwrite=True"):
        bt.save_pretrained(tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        bt.save_pretrained(tmp_path / "results.json")
    with pytest.raises(OutputError, match="cannot be made"):
        bt.save_pretrained(tmp_path / "results.json" / "model")
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]
    bt.save_pretrained(tmp_path / "model")
    bt.save_pretrained(tmp_path / "model", overwrite=True)


def test_templates_are_mappings_too(folders):
    own = {"kind": "text", "prompt": "Q {prompt}"}
    rm = RewardModel.from_pretrained(folders / "bt", template=own)
    assert rm.scorer.template.prompt == "Q {prompt}"
    for wrong, message in [("chat", "as a mapping .* got text"), ({"promt": "x"}, "mean 'prompt'")]:
        with pytest.raises(ConfigError, match=message):
            RewardModel.from_pretrained(folders / "bt", template=wrong)


@pytest.mark.parametrize(("options", "message"), [
    ({"trust_remote_code": "no"}, "trust_remote_code= as true or false, got .no."),
    ({"kind": "classifier", "negate": "no"}, "negate= as true or false, got .no."),
    ({"revision": 3}, "revision= as text or null"),
    ({"revision": "main"}, "revision=main is of a model on the .* is a folder, which has none"),
    ({"kind": "value_head", "reward_token": "x"}, "reward_token= as a whole number or null"),
    ({"kind": "nemotron", "logit": 1.5}, "logit= as a whole number"),
    ({"kind": "qwen_prm", "separator": 3}, "separator= as text"),
    ({"kind": "qwen_prm", "split": 3}, "split= as text"),
    ({"kind": "implicit", "beta": "much"}, "beta= as a number"),
    ({"kind": "json:loads"}, r"is no kind of reward model; .* derived from Kind"),
    ({"dtype": torch.int8}, "Unknown dtype torch.int8"),
    ({"dtype": 16}, "Unknown dtype 16"),
])
def test_options_of_the_wrong_type_are_refused(folders, options, message):
    with pytest.raises(ConfigError, match=message):
        RewardModel.from_pretrained(folders / "bt", **options)


def test_loading_errors(folders, tmp_path):
    with pytest.raises(CheckpointError, match="there is none"):
        RewardModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="got an empty text"):
        RewardModel.from_pretrained("")
    with pytest.raises(CheckpointError, match=r"by its folder or name, .* got null"):
        RewardModel.from_pretrained(None)
    with pytest.raises(ConfigError, match=r"RewardModel.from_pretrained loads"):
        RewardModel(str(folders / "bt"))
    with pytest.raises(ConfigError, match="dtype"):
        RewardModel.from_pretrained(folders / "bt", dtype="float7")
    with pytest.raises(ConfigError, match="device"):
        RewardModel.from_pretrained(folders / "bt", device="gpu")
    half = RewardModel.from_pretrained(folders / "bt", dtype="bfloat16")
    assert half.scorer.reward_model.backbone.dtype == torch.bfloat16
