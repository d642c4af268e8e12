"""`rewardsteer generate` and `rewardsteer score` as a user meets them."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from rewardsteer.cli.generate import generate_command
from rewardsteer.cli.group import Group
from rewardsteer.cli.main import app as main
from rewardsteer.cli.score import score_command
from rewardsteer.data.template import Template
from rewardsteer.decoding import answer, running
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.records import Generation
from tests.cli.kinds_of_models import encoder
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny
from tests.models.test_shared_backbone import keep_adapter

PROMPTS = ["What is 7+8?", "a", "zz top", "Who?", "Sum of 3 and 4: "]


def save_reward_model(base, folder, kind, tokenizer=None, objective="bradley_terry"):
    torch.manual_seed(0)
    model = RewardModel.from_base(base, HeadConfig(kind=kind))
    card = CheckpointCard(
        head=HeadConfig(kind=kind), objective=objective, template=Template().model_dump()
    )
    model.save_pretrained(folder, tokenizer or character_tokenizer(), card)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    base = save_tiny(root / "policy", seed=1)
    save_reward_model(base, root / "farma", "vocabulary")
    save_reward_model(base, root / "plain", "scalar")
    keep_adapter(base, root / "adapter", "vocabulary")
    keep_adapter(save_tiny(root / "strange", seed=9), root / "stranger", "vocabulary")
    save_reward_model(base, root / "other", "vocabulary", character_tokenizer(CHARACTERS[1:]))
    (root / "prompts.jsonl").write_text(
        "".join(json.dumps({"id": f"p{i}", "prompt": p}) + "\n" for i, p in enumerate(PROMPTS))
    )
    return root


def run(*arguments):
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    app.command("generate")(generate_command)
    app.command("score")(score_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def generate(root, output, *more, reward_model="farma", method="farma", prompts="prompts.jsonl"):
    return run(
        "generate", "--model", root / "policy", "--reward-model", root / reward_model,
        "--method", method, "--prompts", root / prompts, "--output", output,
        "--max-new-tokens", 6, "--batch-size", 2, *more,
    )


def read(path):
    return [Generation.model_validate_json(line) for line in path.read_text().splitlines()]


def test_generates_in_order_with_costs(root, tmp_path):
    result = generate(root, tmp_path / "y.jsonl", "--seed", 3)
    assert result.exit_code == 0, result.output
    rows = read(tmp_path / "y.jsonl")
    assert [row.id for row in rows] == [f"p{i}" for i in range(5)]
    assert [row.prompt for row in rows] == PROMPTS
    assert all(row.cost.rm_calls == row.cost.new_tokens for row in rows)
    assert all(row.method == "farma" and row.seed == 3 for row in rows)
    settings = json.loads((tmp_path / "y.jsonl.settings.json").read_text())
    assert settings["seed"] == 3
    assert settings["reward_fingerprint"]


def test_resume_after_a_torn_line_gives_the_same(root, tmp_path):
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    assert generate(root, whole).exit_code == 0
    assert generate(root, torn).exit_code == 0
    lines = torn.read_text().splitlines(keepends=True)
    torn.write_text("".join(lines[:2]) + lines[2][:40])
    result = generate(root, torn, "--resume", "--batch-size", 3)
    assert result.exit_code == 0, result.output
    assert [r.token_ids for r in read(torn)] == [r.token_ids for r in read(whole)]
    assert "3 generations" in result.output
    again = generate(root, torn, "--resume")
    assert again.exit_code == 0
    assert "all 5 prompts are answered" in again.output


def test_interruption_keeps_what_is_written(root, tmp_path, monkeypatch):
    results, calls = running.in_order, []

    def interrupted(*arguments, **options):
        calls.append(1)
        for number, row in enumerate(results(*arguments, **options)):
            if number == 2 and len(calls) == 1:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(answer, "in_order", interrupted)
    output = tmp_path / "y.jsonl"
    assert generate(root, output).exit_code == 130
    assert len(read(output)) == 2
    assert generate(root, output, "--resume").exit_code == 0
    assert len(read(output)) == 5


def refused(result, *parts):
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ") or "\nerror: " in result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in " ".join(result.output.split())


def test_one_backbone(root, tmp_path):
    for name, more in (("two", ()), ("one", ("--share-backbone",))):
        result = generate(root, tmp_path / name, *more, reward_model="adapter")
        assert result.exit_code == 0, result.output
    one, two = (read(tmp_path / name) for name in ("one", "two"))
    assert [row.token_ids for row in one] == [row.token_ids for row in two]


def test_taken_output(root, tmp_path):
    output = tmp_path / "y.jsonl"
    assert generate(root, output).exit_code == 0
    before = output.read_bytes()
    refused(generate(root, output), "exists", "--resume", "--overwrite")
    refused(generate(root, output, "--resume", "--weight", 2), "weight (1.0 → 2.0)")
    assert output.read_bytes() == before
    assert generate(root, output, "--overwrite", "--weight", 2).exit_code == 0


@pytest.mark.parametrize(
    ("options", "more", "parts"),
    [
        ({"method": "frama"}, (), ("Did you mean 'farma'", "best_of_n")),
        ({"reward_model": "plain"}, (), ("'farma'", "vocabulary head", "scalar head")),
        ({"method": "args"}, (), ("'args'", "scalar head", "vocabulary head")),
        ({"method": "pargs", "reward_model": "plain"}, (), ("'partial'", "'bradley_terry'")),
        ({"reward_model": "other"}, (), ("'farma'", "other", "other tokens than", "best_of_n")),
        ({"reward_model": "absent"}, (), ("absent", "there is none")),
        ({}, ("--top-k", 1000), ("top_k = 1000", "exceeds")),
        ({}, ("--share-backbone",), ("whole model", "lora.merge=false")),
        ({}, ("--share-backbone", "--reward-dtype", "bfloat16"), ("takes one --reward-model",)),
        ({"reward_model": "stranger"}, ("--share-backbone",), ("another model", "base of")),
        ({}, ("--temperature", 1e-9), ("temperature",)),
        ({}, ("--dtype", "float8"), ("Unknown dtype 'float8'", "bfloat16")),
        ({}, ("--max-new-tokens", 510), ("'p0'", "512")),
        ({"prompts": "missing.jsonl"}, (), ("missing.jsonl", "cannot be read")),
    ],
)
def test_bad_input_leaves_no_output(root, tmp_path, options, more, parts):
    refused(generate(root, tmp_path / "y.jsonl", *more, **options), *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ("holds no prompts",)),
        ('{"prompt": "a"}\n{"prompt": \n', ("line 2", "not valid JSON")),
        ('{"prompt": "a"}\n{"text": "b", "x": 1}\n', ("line 2", "'prompt'", "text, x")),
        ('{"prompt": 3}\n', ("line 1", "expected text or messages as prompt")),
        ('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n', ("share the id '1'",)),
    ],
)
def test_bad_prompt_files(root, tmp_path, content, parts):
    (root / "bad.jsonl").write_text(content)
    refused(generate(root, tmp_path / "y.jsonl", prompts="bad.jsonl"), *parts)
    assert list(tmp_path.iterdir()) == []


ROWS = [
    {"prompt": p, "completion": c, "tag": i}
    for i, (p, c) in enumerate(zip(PROMPTS, ["15", "b", "", "me", "7"], strict=True))
]


class TestScore:
    @pytest.fixture
    def input_file(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        return path

    def score(self, root, input_file, output, *more):
        return run(
            "score", "--reward-model", root / "plain", "--input", input_file, "--output", output,
            *more,
        )

    def test_rows_in_order_with_rewards(self, root, tmp_path, input_file):
        result = self.score(root, input_file, tmp_path / "y.jsonl")
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
        expected = load_scorer(root / "plain").score(
            PROMPTS, [row["completion"] for row in ROWS]
        )
        assert [row.pop("reward") for row in rows] == pytest.approx(list(expected), rel=1e-5)
        assert rows == ROWS
        refused(self.score(root, input_file, tmp_path / "y.jsonl"), "exists")

    def test_resume(self, root, tmp_path, input_file):
        whole, output = tmp_path / "whole.jsonl", tmp_path / "y.jsonl"
        assert self.score(root, input_file, whole, "--shard-rows", 2).exit_code == 0
        partial = tmp_path / "y.jsonl.partial"
        partial.mkdir()
        lines = whole.read_text().splitlines(keepends=True)
        (partial / "00000001.jsonl").write_text("".join(lines[2:4]))
        made = (tmp_path / "whole.jsonl.run.json").read_text()
        (partial / "run.json").write_text(made.replace('"shard_rows": 2', '"shard_rows": 3'))
        refused(self.score(root, input_file, output, "--shard-rows", 2), "--resume")
        more = ("--shard-rows", 2, "--resume")
        refused(self.score(root, input_file, output, *more), "begun with other shard_rows")
        (partial / "run.json").write_text(made)
        assert self.score(root, input_file, output, *more).exit_code == 0
        assert output.read_text() == whole.read_text()
        assert not partial.exists()

    def test_fields_absent(self, root, tmp_path):
        (tmp_path / "x.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
        result = self.score(root, tmp_path / "x.jsonl", tmp_path / "y.jsonl")
        refused(result, "line 1", "'completion'", "answer, prompt")
        assert not (tmp_path / "y.jsonl").exists()


def test_prompts_on_the_command_line_in_text_files_and_through_pipes(root, tmp_path):
    whole = generate(root, tmp_path / "y.jsonl", "--seed", 3)
    assert whole.exit_code == 0, whole.output
    expected = [row.token_ids for row in read(tmp_path / "y.jsonl")]
    rows = [{"id": f"p{i}", "prompt": prompt} for i, prompt in enumerate(PROMPTS)]
    common = (
        "generate", "--model", root / "policy", "--reward-model", root / "farma", "--method",
        "farma", "--max-new-tokens", 6, "--batch-size", 2, "--seed", 3,
    )
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    app.command("generate")(generate_command)
    app.command("score")(score_command)
    piped = CliRunner().invoke(
        app, [str(one) for one in (*common, "--prompts", "-", "--output", "-")],
        input="".join(json.dumps(row) + "\n" for row in rows),
    )
    assert piped.exit_code == 0, piped.output
    found = [Generation.model_validate_json(line) for line in piped.stdout.splitlines()]
    assert [row.token_ids for row in found] == expected
    assert "written to standard output" in piped.stderr
    (tmp_path / "p.txt").write_text("\n".join([PROMPTS[0], "", PROMPTS[1]]) + "\n")
    assert run(*common, "--prompts", tmp_path / "p.txt", "--output", tmp_path / "t.jsonl"
               ).exit_code == 0
    assert [row.prompt for row in read(tmp_path / "t.jsonl")] == PROMPTS[:2]
    one = run(*common, "--prompt", "Who?", "--output", tmp_path / "one.jsonl")
    assert "1 generation written" in one.stderr
    assert [row.prompt for row in read(tmp_path / "one.jsonl")] == ["Who?"]
    refused(run(*common, "--output", tmp_path / "none.jsonl"), "--prompts", "--prompt")


def test_scores_go_through_pipes(root, tmp_path):
    rows = [{"prompt": "Who?", "completion": "Me."}, {"prompt": "a", "completion": "b"}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text)
    file = run("score", "--reward-model", root / "plain", "--input", tmp_path / "rows.jsonl",
               "--output", tmp_path / "s.jsonl")
    assert file.exit_code == 0, file.output
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    app.command("generate")(generate_command)
    app.command("score")(score_command)
    piped = CliRunner().invoke(
        app, ["score", "--reward-model", str(root / "plain"), "--input", "-", "--output", "-"],
        input=text,
    )
    assert piped.exit_code == 0, piped.output
    assert piped.stdout == (tmp_path / "s.jsonl").read_text()
    assert "rewards written to standard output" in piped.stderr


def test_a_text_without_tokens_is_a_sentence(tmp_path):
    from rewardsteer.data.sources.arithmetic import build_tokenizer
    from tests.fakes import tiny_causal_lm

    tokenizer = build_tokenizer()
    tiny_causal_lm(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    common = ("--model", tmp_path / "policy", "--output", tmp_path / "y.jsonl")
    refused(run("generate", *common, "--prompt", "hello"), "cannot be written with the tokenizer")


def test_a_disk_that_fills_while_generating_is_a_sentence(root, tmp_path, monkeypatch):
    from rewardsteer import outputs

    def full(handle):
        raise OSError(28, "No space left on device")

    output = tmp_path / "y.jsonl"
    append = outputs.append_jsonl

    def filling(path, lines):
        with monkeypatch.context() as patched:
            patched.setattr(outputs.os, "fsync", full)
            append(path, lines)

    monkeypatch.setattr(outputs, "append_jsonl", filling)
    refused(generate(root, output), "No space left on device", "free disk space", "--resume")
    monkeypatch.setattr(outputs, "append_jsonl", append)
    assert generate(root, output, "--resume").exit_code == 0
    assert len(read(output)) == len(PROMPTS)


def test_prompt_ids_that_no_model_knows(root, tmp_path):
    """An id beyond the vocabulary fails its own row; what is no id is one sentence."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"id": "far", "prompt": "a", "prompt_ids": [999999]}\n{"id": "fine", "prompt": "a"}\n'
    )
    result = generate(root, tmp_path / "y.jsonl", prompts=prompts)
    assert result.exit_code == 2
    assert "1 of 2 prompts got no answer" in result.output
    far, fine = read(tmp_path / "y.jsonl")
    assert "999999" in far.error
    assert fine.error is None
    assert fine.token_ids
    prompts.write_text('{"prompt": "a", "prompt_ids": ["5"]}\n')
    refused(
        generate(root, tmp_path / "z.jsonl", prompts=prompts), "line 1", "list of token ids"
    )


@pytest.mark.parametrize(("method", "options", "told"), [
    ("best_of_n", ["--weight", 2], "--weight is not used by --method best_of_n"),
    ("majority_vote", ["--weight", 2], "--weight is not used by --method majority_vote"),
    ("speculative_rejection", ["--target-kl", 1], "--target-kl is not used by"),
    ("best_of_n", ["--weight-end", 2, "--weight-schedule", "linear"], "--weight-schedule is not"),
    ("none", ["--max-kl", 1], "--max-kl is not used by --method none"),
    ("best_of_n", ["--gate", "entropy", "--gate-share", 0.5], "--gate is not used by"),
    ("none", ["--n", 4], "--n is not used by --method none; leave it out, or use adaptive_best_of"),
    ("best_of_n", ["--max-steps", 4], "--max-steps is not used by --method best_of_n"),
    ("beam", ["--set", "drop_rule=none"], "--set drop_rule is not used by --method beam"),
    ("best_of_n", ["--set", "weight=2"], "--set weight is not used by --method best_of_n"),
    ("best_of_n", ["--set", "ensemble_rule=min"], "An ensemble_rule is for several reward models"),
])
def test_how_strongly_rewards_act_is_refused_where_nothing_uses_it(root, method, options, told):
    reward = [] if method in ("none", "majority_vote") else ["--reward-model", root / "plain"]
    arguments = ["generate", "--model", root / "policy", "--prompt", "a", "--method", method,
                 *reward, "--output", root / "unused.jsonl", *options]
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
    assert not (root / "unused.jsonl").exists()


def test_weights_of_several_reward_models_count_in_methods_that_score_responses(root, tmp_path):
    result = run(
        "generate", "--model", root / "policy", "--prompts", root / "prompts.jsonl",
        "--method", "best_of_n", "--n", 2, "--max-new-tokens", 6, "--output", tmp_path / "y.jsonl",
        "--reward-model", root / "plain", "--weight", 2,
        "--reward-model", root / "plain", "--weight", -2,
    )
    assert result.exit_code == 0, result.output
    assert [row.reward for row in read(tmp_path / "y.jsonl")] == [0.0] * len(PROMPTS)


def test_models_that_judge_texts_alone_guide_no_tokens_together(root, tmp_path):
    refused(
        run(
            "generate", "--model", root / "policy", "--prompt", "a", "--method", "args",
            "--output", tmp_path / "y.jsonl", "--reward-model", root / "plain",
            "--reward-model", encoder(tmp_path / "encoder"),
        ), "'args' reads rewards or states of tokens", "encoder judges texts alone",
    )
