import subprocess
import sys

import pytest

from tests.unit.cli.node import NodeOnHost

_RUN = """
import sys
sys.modules["sqlalchemy"] = None
sys.argv = ["apiban", *sys.argv[1:]]
from apiban.cli import main
main()
"""


def _without_sqlalchemy(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as on a host that has the node's packages alone."""
    return subprocess.run(
        [sys.executable, "-c", _RUN, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_node_without_the_feeds_packages(node: NodeOnHost) -> None:
    """What is held can be seen and accepted on a node that cannot be a feed."""
    done = _without_sqlalchemy("feed", "hold", "show")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nothing is held\n"


@pytest.mark.parametrize("words", [("list", "192.0.2.1"), ("serve", "--log", "info"), ("key",)])
def test_command_that_is_not_installed(words: tuple[str, ...]) -> None:
    """One line says what to install, whatever the command was given; the help lists it."""
    done = _without_sqlalchemy("feed", *words)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "sqlalchemy" in done.stderr
    assert "apiban[feed]" in done.stderr
    assert "apiban[feed]" in _without_sqlalchemy("feed", "--help").stdout


def test_unknown_command(node: NodeOnHost) -> None:
    """It is misuse."""
    done = node.run("feed", "nonsense")
    assert done.status == 2
    assert "nonsense" in done.err
