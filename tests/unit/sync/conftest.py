from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.sync.nodes import SyncNode
from tests.unit.sync.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world with the default settings and an empty feed."""
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SyncNode]:
    """Give a node with good settings."""
    made = SyncNode(tmp_path)
    made.write()
    yield made
    made.process.close()
