"""Processes of tests beside each other (pytest -n) share no address, no port and no route."""

from __future__ import annotations

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
