"""``apiban completion``: the scripts, and bash completing by one of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.cli.node import NodeOnHost

BIN = Path(__file__).resolve().parents[3] / "bin"

# What readline does at a TAB: sets what was typed, calls the function, and reads the answers.
TAB = """
source /dev/stdin <<< "$SCRIPT"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
compopt() { :; }
_apiban_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef apiban"), ("fish", "complete ")]
)
def test_scripts(node: NodeOnHost, shell: str, mark: str) -> None:
    """Each shell has one, which asks the command itself."""
    done = node.run("completion", shell)
    assert done.status == 0
    assert mark in done.out
    assert f"_APIBAN_COMPLETE={shell}_complete" in done.out


def test_unknown_shell(node: NodeOnHost) -> None:
    """Another shell is misuse, with those that there are."""
    done = node.run("completion", "tcsh")
    assert done.status == 2
    assert "fish" in done.err


@pytest.mark.parametrize(
    ("typed", "wanted", "unwanted"),
    [
        (["apiban", ""], {"ban", "status", "doctor", "config", "completion"}, {"--json"}),
        (["apiban", "d"], {"doctor"}, {"ban"}),
        (["apiban", "config", ""], {"check", "show"}, {"ban"}),
        (["apiban", "completion", "f"], {"fish"}, {"bash"}),
        (["apiban", "doctor", "--j"], {"--json"}, set()),
        (["apiban", "--st"], {"--state"}, {"--runtime"}),
    ],
)
def test_bash_completes(
    node: NodeOnHost, typed: list[str], wanted: set[str], unwanted: set[str]
) -> None:
    """bash, given the script, completes verbs and options with the real command."""
    script = node.run("completion", "bash").out
    done = subprocess.run(
        ["bash", "--norc", "-c", TAB, *typed[:1], *typed],
        env={"PATH": f"{BIN}:/usr/bin:/bin", "SCRIPT": script},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    given = set(done.stdout.split())
    assert wanted <= given
    assert not unwanted & given
