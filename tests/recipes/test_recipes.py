"""Every shipped recipe is found by itself and runs two updates on a tiny model."""

import json

import pytest

from rewardsteer.configuration import load_config
from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.sources import SOURCES
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.distillation.config import DistilConfig
from rewardsteer.distillation.run import distil
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer, read_card
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.combine import build_objective
from rewardsteer.objectives.config import TermConfig
from rewardsteer.outputs import read_json
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.evaluation_figures import names_of_figures
from rewardsteer.training.recipes import list_recipes, read_recipe
from rewardsteer.training.run import train
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm

OWN_ROWS = {
    "ratings": {
        "response": "2", "helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 2,
        "verbosity": 1, "rating": 2.5,
    },
    "ranked": {"responses": ["2", "3", "4", "11"], "ranks": [1, 2, 2, 3]},
    "labels": {"completion": "2", "label": True},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    tokenizer = build_tokenizer()
    tiny_causal_lm(vocab_size=len(tokenizer)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    options = {"rows": 24, "min_operations": 3, "max_operations": 4}
    config = DataConfig(source={"name": "arithmetic", "options": options}, drop_overlap=False)
    prepare(config, tokenizer, folder / "data")
    rows = [
        {"prompt": f"1+{i}=", "completions": ["1+1=2", "2"], "labels": [i % 2 == 0, False]}
        for i in range(12)
    ]
    (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = {"name": "stepwise", "path": str(folder / "steps.jsonl")}
    save_tiny(folder / "base-steps")
    config = DataConfig(source=steps, test_fraction=0.3)
    prepare(config, character_tokenizer(), folder / "data-steps")
    for name, row in OWN_ROWS.items():
        rows = [row | {"prompt": f"1+{i}="} for i in range(12)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        config = DataConfig(
            source={"name": name, "path": str(folder / f"{name}.jsonl")}, test_fraction=0.3
        )
        prepare(config, character_tokenizer(), folder / f"data-{name}")
    return folder


def test_there_are_recipes():
    assert {"tldr/farma", "hh/bt", "ultrafeedback/pargs", "arithmetic/farma"} <= set(list_recipes())


def test_a_recipe_of_another_command_or_of_a_short_name_is_told():
    with pytest.raises(ConfigError, match="pairs/distil is one of 'rewardsteer distil', not of"):
        read_recipe("pairs/distil", "train")
    with pytest.raises(ConfigError, match="pairs/bt is one of 'rewardsteer train', not of"):
        read_recipe("pairs/bt", "distil")
    with pytest.raises(ConfigError, match=r"Unknown recipe 'bt'\. Did you mean 'pairs/bt'\?"):
        read_recipe("bt", "train")


@pytest.mark.slow
@pytest.mark.parametrize("name", list_recipes())
def test_recipe_runs_two_steps(name, world, tmp_path):
    recipe = load_config(TrainConfig, read_recipe(name))
    assert recipe.data is not None
    for source in recipe.data.sources:
        SOURCES.get(source.name)
    objectives = {term.name for phase in recipe.phases for term in phase.objective}
    own = recipe.data.sources[0].name in OWN_ROWS
    data = f"-{recipe.data.sources[0].name}" if own else "-steps" if "process" in objectives else ""
    config = load_config(TrainConfig, read_recipe(name), [
        f"base_model={world / ('base-steps' if data else 'base')}",
        f"prepared={world / f'data{data}'}", "data=null",
        "optimiser.max_steps=2",
        "optimiser.per_device_train_batch_size=2", "optimiser.gradient_accumulation_steps=1",
        "optimiser.precision=fp32",
        "log.progress=false", "log.print_logs=false", "log.save_steps=0", "log.eval_rows=4",
        "attn_implementation=null",
    ])
    # Two rounds show the alternation; seven only take longer.
    config = config.model_copy(update={"rounds": min(config.rounds, 2)})
    assert (train(config, tmp_path / "run") / "rewardsteer.json").exists()
    state = read_json(tmp_path / "run" / "state.json")
    for phase, record in zip(config.plan(), state, strict=True):
        assert figures(record) <= set(names_of_figures(
            build_objective(phase.objective), config.head.head_class.gives,
            single=record["eval_single"],
        ))


def figures(record):
    """Names of the figures of an evaluation."""
    return {
        name.removeprefix("eval_") for name in record if name.startswith("eval_")
        and not name.endswith(("_runtime", "_per_second", "eval_rows", "eval_single"))
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list_recipes("distil"))
def test_distil_recipe_runs_two_steps(name, world, tmp_path):
    policy = world / ("base" if name.startswith("arithmetic") else "base-steps")
    head = HeadConfig()
    teacher = RewardModel.from_base(policy, head)
    template = {"kind": "text", "append_eos": False}
    teacher.save_pretrained(
        tmp_path / "teacher", load_tokenizer(policy), CheckpointCard(head=head, template=template)
    )
    rows = [json.dumps({"prompt": f"{i}+1="}) + "\n" for i in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(rows))
    config = load_config(DistilConfig, read_recipe(name), [
        f"policy={policy}", f"teacher={tmp_path / 'teacher'}",
        f"prompts={tmp_path / 'prompts.jsonl'}", "sampling.per_prompt=1",
        "sampling.max_new_tokens=4", "candidates.top_k=5", "test_fraction=0.3",
        "optimiser.max_steps=2", "optimiser.per_device_train_batch_size=2",
        "optimiser.precision=fp32", "log.progress=false", "log.print_logs=false",
    ])
    folder = distil(config, tmp_path / "run")
    assert read_card(folder).head.layers == "low_rank"
    loss = build_objective([TermConfig(name="distillation", options=config.loss)])
    assert figures(read_json(tmp_path / "run" / "result.json")) == set(
        names_of_figures(loss, config.head.head_class.gives, single=True)
    )
