from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.firewall.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a host with an empty kernel, no list, and nobody who syncs."""
    made = World(tmp_path)
    yield made
    made.close()
