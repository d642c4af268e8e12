"""Options shared by several commands, declared once and passed to a command as one value."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any


def grouped(
    place: str, options: Sequence[inspect.Parameter], gather: Callable[[dict[str, Any]], Any]
) -> Callable[[Any], Any]:
    """A decorator of commands that replaces one parameter by ``options``.

    Args:
        place: the replaced parameter; gets the result of ``gather``.
        options: with annotations and defaults for typer.
        gather: turns the options' values, by name, into the parameter's value.
    """
    def decorate(command: Any) -> Any:
        def run(**given: Any) -> None:
            own = {one.name: given.pop(one.name) for one in options}
            command(**{place: gather(own)}, **given)

        signature = inspect.signature(command, eval_str=True)
        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for one in signature.parameters.values()
            for each in (options if one.name == place else [one])
        ]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate
