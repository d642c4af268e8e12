"""Shell completion of the names of methods, recipes and sources."""


def complete_method(incomplete: str) -> list[str]:
    """Names of decoding methods."""
    from rewardsteer.decoding.methods import METHODS

    return [name for name in METHODS.names() if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Names of shipped recipes."""
    from rewardsteer.training.recipes import list_recipes

    return [name for name in list_recipes("any") if name.startswith(incomplete)]


def complete_source(incomplete: str) -> list[str]:
    """Names of data sources."""
    from rewardsteer.data.sources import SOURCES

    return [name for name in SOURCES.names() if name.startswith(incomplete)]
