"""Each backend, on the real kernel, in a network of its own with real packets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest
from apiban.firewall.backend import Backend

from tests.contract.firewall.kits import KITS, Kit
from tests.contract.firewall.world import World


@pytest.fixture(scope="module")
def _built() -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with closing(World()) as world:
        yield world


@pytest.fixture(params=KITS, ids=lambda kit: kit.name)
def kit(request: pytest.FixtureRequest) -> Kit:
    """Give one of the backends with what belongs to it."""
    one: Kit = request.param
    return one


@pytest.fixture
def backend(kit: Kit, _built: World) -> Iterator[Backend]:
    """Give a backend, with nothing of anybody's in the kernel."""
    kit.clear()
    yield kit.make()
    kit.clear()


@pytest.fixture
def world(_built: World) -> World:
    """Give the networks."""
    return _built
