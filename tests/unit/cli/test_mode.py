import pytest
from apiban.settings import Mode
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import runtime_path

from tests.unit.cli.node import NodeOnHost


def test_mode_of_the_settings(node: NodeOnHost) -> None:
    """Who set it is said."""
    assert node.run("mode").out == "mode enforce, as the settings say\n"
    assert node.run("mode", "--json").json == {
        "mode": "enforce",
        "by": "settings",
        "since": None,
        "expires": None,
        "settings": "enforce",
        "in_force": None,
    }


@pytest.mark.parametrize("name", ["enforce", "shadow", "off"])
def test_mode_for_a_time(node: NodeOnHost, name: str) -> None:
    """It overrules the settings until its end, and no longer."""
    done = node.run("mode", name, "--for", "30m")
    assert done.status == 0
    assert f"mode {name} until" in done.out
    said = node.run("mode", "--json").json
    assert (said["mode"], said["by"]) == (name, "operator")
    assert said["expires"] == node.clock.now() + 1800
    node.clock.tick(1800)
    assert node.run("mode", "--json").json["by"] == "settings"


def test_mode_for_good_and_back(node: NodeOnHost) -> None:
    """It stays until the operator goes back to the settings'."""
    node.run("mode", "off")
    assert "for good" in node.run("mode").out
    done = node.run("mode", "settings")
    assert done.out == "mode enforce, as the settings say\n"
    assert node.store.mode(node.clock.now()) is None


def published(node: NodeOnHost) -> Mode:
    """Give the mode of the list that is announced."""
    assert node.board is not None
    return load_snapshot(runtime_path(node.runtime, node.board.generation)).mode


def test_mode_is_in_force_when_the_command_ends(node: NodeOnHost) -> None:
    """The published list has it by then."""
    with node.syncing():
        done = node.run("mode", "shadow", "--json")
        assert done.json["in_force"]["seconds"] < 5
        assert published(node) is Mode.SHADOW
        node.run("mode", "settings")
        assert published(node) is Mode.ENFORCE


def test_mode_that_the_settings_ended_meanwhile(node: NodeOnHost) -> None:
    """Nothing runs that could note the change: the next start ends it, and it is said already."""
    node.run("mode", "off")
    node.write_settings('mode = "shadow"')
    assert node.run("mode").out == "mode shadow, as the settings say\n"
    assert node.run("mode", "off", "--json").json["mode"] == "off"
    assert node.run("mode", "--json").json["mode"] == "off"
