"""``apiban config``, and its short forms."""

from __future__ import annotations

import tomllib

import pytest

from tests.unit.cli.node import KEY, NodeOnHost

CHECK = pytest.mark.parametrize("command", [("config", "check"), ("-t",)], ids=" ".join)
SHOW = pytest.mark.parametrize("command", [("config", "show"), ("-T",)], ids=" ".join)


@CHECK
def test_good(node: NodeOnHost, command: tuple[str, ...]) -> None:
    """One line, status 0."""
    done = node.run(*command)
    assert (done.status, done.out, done.err) == (0, f"{node.file}: good\n", "")


@CHECK
def test_every_mistake_on_a_line(node: NodeOnHost, command: tuple[str, ...]) -> None:
    """Status 1, each with what is allowed, and nothing that says good."""
    node.write_settings('mode = "on"', feed="interval = 0")
    done = node.run(*command)
    assert (done.status, done.out) == (1, "")
    lines = done.err.splitlines()
    assert [line.split()[1] for line in lines] == ["mode", "feed.interval"]
    assert all("must be" in line for line in lines)


@CHECK
def test_warnings_are_no_mistakes(node: NodeOnHost, command: tuple[str, ...]) -> None:
    """A node without a key is good, and its operator is told."""
    node.file.write_text("", encoding="ascii")
    done = node.run(*command)
    assert done.status == 0
    assert done.out == f"{node.file}: good\n"
    assert done.err.startswith("warning: no key is set")


@CHECK
def test_file_of_the_command_line(node: NodeOnHost, command: tuple[str, ...]) -> None:
    """It goes before that of the environment, and must be there."""
    missing = node.folder / "none.toml"
    done = node.run("--settings", str(missing), *command)
    assert done.status == 1
    assert f"there is no file {missing}" in done.err


def test_no_file_at_all(node: NodeOnHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are good; that no file was read is said."""
    monkeypatch.delenv("APIBAN_SETTINGS")
    missing = node.folder / "none.toml"
    monkeypatch.setattr("apiban.settings.load.DEFAULT_PATH", missing)
    done = node.run("-t")
    assert (done.status, done.out) == (0, f"{missing}: not there; the defaults: good\n")


def test_check_for_machines(node: NodeOnHost) -> None:
    """The same as a document, with the same status."""
    assert node.run("config", "check", "--json").json == {
        "file": str(node.file),
        "good": True,
        "problems": [],
        "warnings": [],
    }
    node.write_settings('mode = "on"')
    done = node.run("config", "check", "--json")
    assert done.status == 1
    assert done.json["good"] is False
    assert len(done.json["problems"]) == 1


@SHOW
def test_show(node: NodeOnHost, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting with its value and who gave it; it is TOML, and the key is masked."""
    monkeypatch.setenv("APIBAN_FEED_TIMEOUT", "9")
    done = node.run(*command)
    assert done.status == 0
    shown = tomllib.loads(done.out)
    assert shown["feed"]["key"] == "********"
    assert shown["feed"]["timeout"] == 9
    origins = {line.split()[0]: line.partition("  # ")[2] for line in done.out.splitlines()}
    assert origins["feed.timeout"] == "environment APIBAN_FEED_TIMEOUT"
    assert origins["feed.key"] == origins["paths.state"] == f"file {node.file}"
    assert origins["mode"] == "default"
    assert KEY not in done.out


def test_show_folders_of_the_command_line(node: NodeOnHost) -> None:
    """Another state folder is shown as what it is."""
    done = node.run("--state", "/srv/other", "config", "show", "--json")
    settings = done.json["settings"]
    assert settings["paths.state"] == {
        "value": "/srv/other",
        "origin": "command line",
        "name": "--state",
    }
    assert settings["paths.runtime"]["value"] == str(node.runtime)


def test_show_of_bad_settings(node: NodeOnHost) -> None:
    """There is nothing to show but the mistakes."""
    node.write_settings('mode = "on"')
    done = node.run("-T")
    assert (done.status, done.out) == (1, "")
    assert "mode = on" in done.err


@pytest.mark.parametrize(
    "arguments", [("-t", "status"), ("-T", "config", "show"), ("--state", "/tmp")]
)
def test_misuse(node: NodeOnHost, arguments: tuple[str, ...]) -> None:
    """A short form goes alone, and options alone are no command."""
    done = node.run(*arguments)
    assert done.status == 2
    assert "one verb is wanted" in done.err
    assert done.out == ""
