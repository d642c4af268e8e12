"""Calls that processes of the demo make in tests."""

import os
import signal

from rewardsteer.errors import ConfigError


def fail():
    raise ConfigError("no such thing")


def die():
    os.kill(os.getpid(), signal.SIGKILL)
