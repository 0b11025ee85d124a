"""The example of docs/kemi.md runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.trial.kamailio import SCRIPT

from tests.support.node import NodeUnderTest

pytestmark = pytest.mark.kamailio

DOCUMENT = SCRIPT.parents[1] / "docs" / "kemi.md"


def test_composed_guard(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """A KEMI script that composes the guard drops the listed and answers the rest by itself."""
    code = SCRIPT.parents[1]
    text = DOCUMENT.read_text(encoding="utf-8").replace("/usr/lib/apiban", str(code))
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (lines,) = re.findall(r"```\n(kemi\.reply.*?)```", text, re.DOTALL)
    own = tmp_path / "own_kemi.py"
    own.write_text(script, encoding="utf-8")
    configuration = tmp_path / "own.cfg"
    modules = "".join(f'loadmodule "{name}.so"\n' for name in ("kex", "sl", "pv", "ctl"))
    configuration.write_text(f"#!KAMAILIO\ndebug=2\nchildren=2\n{modules}{lines}", encoding="utf-8")
    node = make_node(("127.0.1.5",), configuration=configuration, script=own).start()
    for transport in ("udp", "tcp"):
        assert node.is_dropped("127.0.1.5", transport)
        assert node.passes("127.0.2.1", transport)
    node.kamailio.rpc("app_python.reload")
    assert node.passes("127.0.2.1")
    assert node.is_dropped("127.0.1.5")
