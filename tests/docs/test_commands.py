"""Every command of README.md and docs/*.md.

*Parsed* (all): subcommand, options and types are those of the real command line, settings those of
the real configuration classes, files and make targets exist. What a page abbreviates (``…``) or
marks as optional (``[…]``) is left out, and then required options may be missing.

*Executed* (`EXECUTED`): on tiny models and a few rows, in the order of the page, in a folder in
which the names of the page exist, with the additions that `SMALLER` lists (a local file in place of
a hub name, a tiny base model, few updates) and no other change. Servers (`SERVED`) listen at a free
port, answer what the page asks them, and end by a signal.

The tutorial is executed as it is written, by test_tutorial.py. Commands that are parsed only are
executed elsewhere with other words: several processes and resuming (tests/training), vLLM
(tests/vllm), Ray and judges over HTTP (tests/evaluation), pushing and reward-bench
(tests/integrations), the demo (tests/demo). Those that need a GPU are executed nowhere.
"""

import json
import re
import shutil
import subprocess

import numpy
import pytest
import typer
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.configuration import load_config
from rewardsteer.data.config import DataConfig
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.distillation.config import DistilConfig
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.goals.config import GoalConfig
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.policy_config import PolicyConfig
from rewardsteer.training.recipes import read_recipe
from tests.docs.commands import PAGES, ROOT, Command, commands, requests
from tests.fakes import save_tiny
from tests.models.kinds.published import save_pair_encoder
from tests.serving.running import Process, wait_for

ALL = [command for page in PAGES for command in commands(page)]
OUR_COMMANDS = [command for command in ALL if "rewardsteer" in command.words[:7]]
TINY = [
    "base_model=MODEL", "optimiser.max_steps=2", "optimiser.per_device_train_batch_size=2",
    "optimiser.gradient_accumulation_steps=1", "optimiser.precision=fp32", "log.progress=false",
    "log.print_logs=false",
    "log.save_steps=0", "log.eval_rows=4", "data.prefix_start=0", "attn_implementation=null",
]

# Page → which of its commands run.
EXECUTED = {
    "commands.md": r"prepare hh|train (hh|gsm8k|pairs)|goal-state|score|evaluate|generate|report|"
                   "doctor",
    "data.md": r"list|prepare|stats|prompts",
    "decoding.md": r".",
    "distillation.md": r".",
    "distributed.md": r"quantize",
    "doctor.md": r"doctor out/reward$",
    "evaluating_reward_models.md": r".",
    "evaluation.md": r".",
    "from_published_code.md": r".",
    "generation_reference.md": r".",
    "goal.md": r".",
    "objectives.md": r".",
    "process.md": r".",
    "publishing.md": r"card|--dry-run|preference",
    "recipes.md": r".",
    "report.md": r"inspect|report",
    "reward_models.md": r"score",
    "scoring.md": r"score",
    "search.md": r".",
    "training.md": r"train|recipes",
    "training_speed.md": r".",
}
# What is executed in other tests, or needs a GPU.
ELSEWHERE = (
    r"--engine|--judge-url|--resume|accelerate|attn_implementation=flash|serve |evaluate frontier|"
    "--published"
)
# What a page's command gets beside its own words.
SMALLER = [
    (r"data prepare (hh|tldr|--recipe) ", ["--path", "hh"]),
    (r"data prepare pairs ", ["prefix_start=0"]),
    (r"train (\S+/|mine)", TINY),
    (r"train (?!.*(prepared=|data\.sources))", ["prepared=PREPARED"]),
    (r"train (?!.*data\.)", ["data=null"]),  # PREPARED has a template of its own
    (r"train (hh|tldr)/farma", ["rounds=2"]),
    (r" generate --model", ["--max-new-tokens", "4"]),
    (r"by_subset", ["--overwrite"]),  # these rows have one subset, whose goal is there already
    # There the model is trained on PREPARED, which was written otherwise than these rows.
    (r"evaluate preference .*data/tldr", ["--data", "PREPARED"]),
    (r"--budget-per-prompt", ["--budget-per-prompt", "300"]),  # the last one given counts
]


def split(command: Command) -> list[str]:
    """The words after ``rewardsteer``, without what is left out."""
    words = command.words
    words = words[words.index("rewardsteer") + 1 :]
    kept: list[str] = []
    for word in words:
        if "…" in word and kept and kept[-1].startswith("--"):
            kept.pop()  # an option whose value is left out
        elif "…" not in word and not word.startswith("[") and not word.endswith("]"):
            kept.append(word)
    return kept


def parse(command: Command) -> tuple[str, dict]:
    """Name of the subcommand and its parameters, by the real parser; no callback runs."""
    words, name = split(command), []
    current = typer.main.get_command(app)
    while hasattr(current, "commands"):
        assert words, f"{' '.join(name)} is no command alone"
        assert words[0] in current.commands, f"no command {' '.join([*name, words[0]])}"
        name.append(words.pop(0))
        current = current.commands[name[-1]]
    for parameter in current.params:
        parameter.required = parameter.required and not command.abbreviated
    return " ".join(name), current.make_context(" ".join(name), words).params


@pytest.mark.parametrize("command", OUR_COMMANDS, ids=str)
def test_command_parses(command):
    name, given = parse(command)
    settings = given.get("overrides") or given.get("settings") or []
    if name == "train" and given["recipe"]:
        own = given["recipe"].endswith(".yaml")
        load_config(TrainConfig, read_recipe("tldr/farma" if own else given["recipe"]), settings)
    elif name == "distil":
        load_config(DistilConfig, read_recipe(given["recipe"]), settings)
    elif name == "recipes" and given["name"]:
        load_config(TrainConfig, read_recipe(given["name"]), settings)
    elif name == "data prepare":
        load_config(DataConfig, {"sources": [{"name": given["source"] or "hh"}]}, settings)
    elif name == "train-policy":
        load_config(PolicyConfig, {}, settings)
    elif name == "goal-state":
        load_config(GoalConfig, {}, settings)
    elif name == "evaluate correctness":
        load_config(CorrectnessConfig, {}, settings)
    elif name == "generate":
        load_config(DecodingConfig, {"method": given["method"]}, settings)
    else:
        assert not settings, f"settings of {name} are not checked here: {settings}"


def test_other_commands_exist():
    rest = [command for command in ALL if command not in OUR_COMMANDS]
    assert rest
    for command in rest:
        words = command.words
        if words[0] == "make":
            done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True)
            assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
        elif words[:2] == ["python", "-m"]:
            assert (ROOT / "src" / f"{words[2].replace('.', '/')}.py").exists(), command
        else:
            assert (ROOT / words[1]).exists(), command
    for command in OUR_COMMANDS:
        if command.words[0] == "accelerate":
            assert (ROOT / command.words[command.words.index("--config_file") + 1]).exists()


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder in which the pages' names exist; each page gets a copy."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("MODEL", "POLICY", "SMALL_POLICY"):
        save_tiny(folder / name)
    tokenizer = load_tokenizer(folder / "MODEL")
    scalar, vocabulary = HeadConfig(), HeadConfig(kind="vocabulary")
    kinds = {
        "bt": (scalar, "bradley_terry"), "genarm": (vocabulary, "autoregressive"),
        "farma": (vocabulary, "bradley_terry+max_constraint"),
        "goal": (scalar, "bradley_terry+goal_contrastive"),
    }
    for kind, (head, objective) in kinds.items():
        template = {"append_eos": True}
        RewardModel.from_base(folder / "MODEL", head).save_pretrained(
            folder / "made" / kind, tokenizer,
            CheckpointCard(head=head, objective=objective, template=template))
    talk = [{"prompt": f"\n\nHuman: What is {i}?\n\nAssistant:", "chosen": f" It is number {i}.",
             "rejected": f" Nobody knows, not even {i}."} for i in range(12)]
    lines(folder / "hh" / "train.jsonl", talk[:8])
    lines(folder / "hh" / "test.jsonl", talk[8:])
    lines(folder / "mine.jsonl", [
        {"question": f"{i}?", "good": f"yes {i}", "bad": f"no, not {i}"} for i in range(30)])
    lines(folder / "pairs.jsonl", [
        {"prompt": f"{i}?", "chosen": f"yes {i}", "rejected": f"no, not {i}",
         "completion": "both"} for i in range(8)])
    lines(folder / "x.jsonl", [{"prompt": "1+1", "completion": "2"}] * 3)
    lines(folder / "steps.jsonl", [
        {"prompt": f"{i}?", "completions": [f"{i} = {i}.", "Yes."], "labels": [True, i % 2 == 0]}
        for i in range(12)])
    lines(folder / "ratings.jsonl", [
        {"prompt": f"{i // 2}?", "response": f"yes {i}", "rating": i % 5} for i in range(12)])
    lines(folder / "reward-bench-2" / "test.jsonl", [
        {"id": str(i), "prompt": f"{i}?", "chosen": [f"yes {i}"], "rejected": ["no", "0", "none"],
         "subset": "Math"} for i in range(4)])
    shutil.copy(folder / "reward-bench-2" / "test.jsonl", folder / "rows.jsonl")
    (folder / "RM-Bench").mkdir()
    (folder / "RM-Bench" / "total_dataset.json").write_text(json.dumps([
        {"id": str(i), "prompt": f"{i}?", "chosen": [f"yes {i}"] * 3, "rejected": ["no"] * 3,
         "domain": "chat"} for i in range(4)]))
    lines(folder / "prompts.jsonl", [{"id": str(i), "prompt": f"{i}?"} for i in range(3)])
    graded = [{"question": f"What is {i}+1?", "generation": f"It is \\boxed{{{i + s % 2}}}",
               "predicted_answer": str(i + s % 2), "expected_answer": str(i + 1),
               "is_correct": bool(s % 2)} for i in range(10) for s in range(4)]
    lines(folder / "graded.jsonl", graded)
    lines(folder / "test.jsonl", [
        {"question": f"What is {i}+1?", "answer": f"It is so.\n#### {i + 1}"} for i in range(10)])
    lines(folder / "PAIRS" / "train.jsonl", [
        {"question": f"{i}+1?", "correct": f"{i + 1}", "incorrect": f"{i}"} for i in range(10)])
    for sample in range(4):
        lines(folder / "solutions" / "gsm8k" / f"output-rs{sample}.jsonl", graded[sample::4])
    invoke(["data", "prepare", "pairs", "--path", str(folder / "pairs.jsonl"), "--tokenizer",
            str(folder / "MODEL"), "--out", str(folder / "PREPARED"), "prefix_start=0",
            "test_fraction=0.3"])
    invoke(["goal-state", "--reward-model", str(folder / "made" / "goal"), "--data",
            str(folder / "PREPARED"), "name=good"])
    return folder


# Name on a page → which of the ready-made models it is.
MODELS = {
    "commands.md": {"out/helpful/model": "farma", "out/harmless/model": "farma"},
    "distillation.md": {"my-reward-model": "bt"},
    "doctor.md": {"out/reward": "bt"},
    "decoding.md": {"FARMA": "farma", "REWARD": "goal", "HELPFUL": "genarm", "HARMLESS": "genarm"},
    "evaluating_reward_models.md": {"R": "goal", "out/bt/model": "bt", "out/pargs/model": "bt",
                                    "PROXY": "bt", "GOLD": "goal"},
    "evaluation.md": {"REWARD_MODEL": "bt", "out/bt/model": "bt", "out/farma/model": "farma"},
    "from_published_code.md": {"R": "bt"},
    "goal.md": {"R": "bt"},
    "publishing.md": {"out/bt/model": "bt"},
    "report.md": {"R": "farma"},
    "scoring.md": {"R": "goal"},
    "search.md": {"REWARD": "goal"},
}


@pytest.fixture
def place(world, tmp_path, monkeypatch):
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    (tmp_path / "methods.yaml").write_text(
        "none:  {method: none, top_k: 10, max_new_tokens: 4}\n"
        "farma: {method: farma, top_k: 10, max_new_tokens: 4, reward_model: out/farma/model}\n"
        "best:  {method: best_of_n, n: 2, max_new_tokens: 4, reward_model: out/bt/model}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"rewardsteer {' '.join(words)}\n{result.output}"
    return result


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED)
def test_commands_run(page, place):
    for name, kind in MODELS.get(page, {}).items():
        shutil.copytree(place / "made" / kind, place / name)
    prepare_page(page, place)
    run = 0
    for command in commands(next(path for path in PAGES if path.name == page)):
        wanted = re.search(EXECUTED[page], command.text)
        if not wanted or command not in OUR_COMMANDS or command.abbreviated:
            continue
        if re.search(ELSEWHERE, command.text):
            continue
        words = split(command)
        for pattern, more in SMALLER:
            if re.search(pattern, command.text):
                words = [*words, *(word for word in more if not taken(word, words))]
        clear(words, place)
        invoke(words)
        run += 1
    assert run >= 1, "the page has lost its commands"


def taken(word, words):
    """A setting that the page gives itself."""
    return "=" in word and any(given.startswith(word.partition("=")[0] + "=") for given in words)


def clear(words, place):
    """A page writes several examples to one place; each finds it empty."""
    for option in ("--out", "--output"):
        if option in words:
            target = place / words[words.index(option) + 1]
            if target.is_dir():
                shutil.rmtree(target)
            elif target.exists():
                target.unlink()


def prepare_page(page, place):
    """What a page's reader has from the steps before it."""
    if page == "generation_reference.md":
        shutil.copytree(place / "PREPARED", place / "data" / "hh")
    if page == "goal.md":
        invoke(["score", "--reward-model", str(place / "made" / "bt"), "--input", "solutions",
                "--output", "out/baseline/scores"])
    if page == "distillation.md":
        shutil.copytree(place / "POLICY", place / "my-policy")
    if page == "reward_models.md":
        head = HeadConfig(
            kind="attributes", attributes=("helpfulness", "safety"), weights=(0.5, 0.5))
        RewardModel.from_base(place / "MODEL", head).save_pretrained(
            place / "FOLDER", load_tokenizer(place / "MODEL"),
            CheckpointCard(head=head, objective="regression"))
        shutil.copy("x.jsonl", "rows.jsonl")
    if page == "evaluating_reward_models.md":
        invoke(["score", "--reward-model", str(place / "made" / "bt"), "--input", "solutions",
                "--output", "other-scores"])
    if page == "from_published_code.md":
        shutil.copytree(place / "solutions", place / "C")
        shutil.copytree(place / "PREPARED", place / "D")
        (place / "S").mkdir()
        numpy.save("goal.npy", numpy.ones((1, 32), dtype=numpy.float32))
    if page == "report.md":
        invoke(["generate", "--model", "POLICY", "--method", "none", "--max-new-tokens", "4",
                "--prompts", "prompts.jsonl", "--output", "answers.jsonl"])
    if page == "search.md":
        (place / "llm-blender").mkdir()
        save_pair_encoder(place / "llm-blender" / "PairRM-hf")
    if page == "training.md":
        shutil.copy(ROOT / "src/rewardsteer/recipes/hh/farma.yaml", place / "mine.yaml")
    if page == "publishing.md":
        invoke(["evaluate", "preference", "--reward-model", "out/bt/model", "--data", "PREPARED",
                "--out", "out/accuracy"])
        invoke(["score", "--reward-model", "out/bt/model", "--input", "solutions", "--output",
                "out/scores"])
        invoke(["evaluate", "correctness", "--scores", "out/scores", "--out", "out/correctness"])


# Pages that say the same need one server.
SERVED = {command.text: command for command in OUR_COMMANDS
          if "serve" in command.words and "--engine" not in command.words}


@pytest.mark.slow
@pytest.mark.parametrize("command", SERVED.values(), ids=str)
def test_server_answers_what_its_page_asks(command, place, warm):
    names = {"out/farma/model": "farma", "out/bt/model": "bt", "REWARD": "bt",
             "VOCABULARY_REWARD": "farma"}
    for name, kind in names.items():
        shutil.copytree(place / "made" / kind, place / name)
    (place / "key").write_text("0123456789abcdef-0123456789abcdef\n")
    (place / "key").chmod(0o600)
    server = Process(*split(command), "--port", "0", warm=warm)
    assert wait_for(server.address).status_code == 200
    asked = requests(ROOT / "docs" / "serving.md") if "--api-key-file" not in command.words else ()
    for words in asked:
        if "--model" not in command.words and not any("/v1/rewards" in word for word in words):
            continue  # without a policy there are rewards alone
        words = [word.replace("http://127.0.0.1:8000", server.address) for word in words]
        done = subprocess.run([*words, "-sS", "--fail-with-body"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)
    assert server.end() == 0
