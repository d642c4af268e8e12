"""All errors that a user can cause, in one hierarchy.

    RewardsteerError
    ├── ConfigError         a setting is unknown, missing or contradictory
    ├── DataError           a file or a row is not what was expected
    ├── CheckpointError     a model folder is missing, damaged or of the wrong kind
    ├── MismatchError       two parts do not fit (tokenizers, head and method, goal and model)
    ├── OutputError         an output exists already or cannot be written
    └── NonFiniteError      a loss, gradient or reward is NaN or infinite

A message is one sentence or two: what was expected, what came, what to do. The command line prints
it without a traceback and exits with status 2. Internal invariants are checked by ``assert``.
"""


class RewardsteerError(Exception):
    """Base of all errors that a user can cause and repair."""


class ConfigError(RewardsteerError, ValueError):
    """A setting is unknown, missing or contradictory."""


class DataError(RewardsteerError, ValueError):
    """A file or a row is not what was expected."""


class CheckpointError(RewardsteerError, ValueError):
    """A model folder is missing, damaged or of the wrong kind."""


class MismatchError(RewardsteerError, ValueError):
    """Two parts that must fit together do not."""


class OutputError(RewardsteerError, OSError):
    """An output exists already or cannot be written."""


class NonFiniteError(RewardsteerError, ArithmeticError):
    """A loss, gradient or reward is NaN or infinite."""
