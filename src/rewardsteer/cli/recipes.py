"""``rewardsteer recipes``: list or show recipes."""

from typing import Annotated

import typer


def recipes_command(
    name: Annotated[
        str | None, typer.Argument(help="A shipped recipe or a YAML file; without one, the list.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change: dotted.name=value.")
    ] = None,
) -> None:
    """List the shipped recipes, or show one with every setting."""
    from rewardsteer.training.recipes import list_recipes, recipe_title

    if name is None:
        recipes = list_recipes("any")
        width = max(map(len, recipes))
        for one in recipes:
            typer.echo(f"{one:<{width}}  {recipe_title(one)}")
        return

    import yaml

    from rewardsteer.configuration import Config, load_config
    from rewardsteer.distillation.config import DistilConfig
    from rewardsteer.training.config import TrainConfig
    from rewardsteer.training.recipes import own_file, read_recipe, recipe_text

    values = read_recipe(name)
    kind: type[Config] = DistilConfig if "teacher" in values else TrainConfig
    config = load_config(kind, values, overrides or (), file=own_file(name))
    typer.echo(recipe_text(name))
    if isinstance(config, TrainConfig):
        phases = [phase.name for phase in config.plan()]
        typer.echo(f"# {len(phases)} phases in turn: {', '.join(phases)}. epochs, max_steps and "
                   "rows count for each of them.")
    typer.echo("# Every setting, as OUT/config.yaml will hold it:")
    typer.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), nl=False)
