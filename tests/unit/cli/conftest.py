from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.node import NodeOnHost


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeOnHost]:
    """Give the node of a host: settings and an empty store; no Kamailio and no sync run."""
    made = NodeOnHost(tmp_path, monkeypatch)
    yield made
    made.close()
