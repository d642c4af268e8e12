import pytest

from tests.fakes import save_tiny
from tests.serving.running import make_service, running


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny backbone for reward models."""
    return save_tiny(tmp_path_factory.mktemp("serving") / "llama", "llama", seed=7)


@pytest.fixture(scope="module")
def service(folder):
    """A policy guided by FaRMA."""
    return make_service(folder)


@pytest.fixture(scope="module")
def address(service):
    """Where it answers."""
    with running(service) as (address, _):
        yield address
