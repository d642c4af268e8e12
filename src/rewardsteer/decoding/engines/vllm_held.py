"""A reward model that whoever runs vLLM in this process holds already, and what came of its rows.

vLLM makes the processor itself, from a class's name. So that it finds what belongs to its engine,
the engine's ``additional_config`` names an entry here, which lives as long as its engine.
"""

import itertools
import weakref
from dataclasses import dataclass, field
from typing import Any

from rewardsteer.decoding.guide import Reads

# Under which the key stands in vLLM's additional_config.
ENTRY = "rewardsteer"


@dataclass(eq=False)
class Held:
    """What an engine in this process shares with its processor.

    Attributes:
        scorer: the reward model.
        costs: by request, what it cost the reward model; only requests that stand here are counted.
        failed: by such request, why its guidance ended early.
    """

    scorer: Any
    costs: dict[str, Reads] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)


_ENTRIES: "weakref.WeakValueDictionary[str, Held]" = weakref.WeakValueDictionary()
# Counted, not drawn: vLLM keeps what it compiles by its configuration, and so finds it again.
_keys = itertools.count()


def hold(held: Held) -> str:
    """Enter; the key, for as long as the entry is referred to from elsewhere."""
    key = str(next(_keys))
    _ENTRIES[key] = held
    return key


def find(additional_config: Any) -> Held | None:
    """The entry that an engine's configuration names; None where it names none."""
    key = additional_config.get(ENTRY) if isinstance(additional_config, dict) else None
    return None if key is None else _ENTRIES.get(key)
