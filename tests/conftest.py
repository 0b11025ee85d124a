"""Processes of tests beside each other (pytest -n) share no address, no port and no route."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.network import enter_own_network


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several processes a network of its own: whatever it binds, no other has it."""
    if not hasattr(config, "workerinput"):  # pytest-xdist's mark of such a process
        return
    try:
        enter_own_network()
    except OSError as error:
        raise pytest.UsageError(
            f"tests beside each other need a network namespace each ({error.strerror}): "
            "run as root, or with -n 0"
        ) from error


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Take back what the command line does to this process: its files are for the group alone."""
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)
