"""Nodes for the integration tests: each has folders and ports of its own, and ends by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.contract.firewall.world import World
from tests.support.node import NodeUnderTest


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., NodeUnderTest]]:
    """Make nodes that are not started yet."""
    made: list[NodeUnderTest] = []

    def make(listed: tuple[str, ...] = (), **options: Any) -> NodeUnderTest:
        folder = tmp_path / f"node{len(made)}"
        folder.mkdir()
        made.append(NodeUnderTest(folder, listed, **options))
        return made[-1]

    yield make
    for node in made:
        node.stop()


@pytest.fixture
def node(make_node: Callable[..., NodeUnderTest]) -> NodeUnderTest:
    """Give a started node that lists 127.0.1.5 and 127.0.1.6."""
    return make_node(("127.0.1.5", "127.0.1.6")).start()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Give networks of their own, with this thread on the host that is protected."""
    with closing(World()) as made:
        yield made
