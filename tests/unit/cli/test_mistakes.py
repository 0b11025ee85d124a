"""What an operator can still do while the settings have a mistake."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from apiban.settings import Mode
from apiban.store import LOCAL
from apiban.sync.report import kept_path

from tests.unit.cli.node import KEY, OWN, Done, NodeOnHost, networks

LISTED = "198.51.100.7"
PEER, UPSTREAM, ALLOWED = "203.0.113.5", "203.0.113.9", "203.0.113.77"
GOOD = f"""mode = "shadow"
allow.networks = ["203.0.113.64/28"]
node.peers = ["{PEER}"]
edge.upstreams = ["sip:{UPSTREAM}:5061;transport=tls"]
"""
BAD = 'mode = "perhaps"\nlog.interval = "often"'
SAID = "apiban: mode = perhaps: must be one of enforce, shadow, off (and 1 more)"

# Each verb with the status that it has when it works.
VERBS = pytest.mark.parametrize(
    ("words", "status"),
    [
        (("mode", "off"), 0),
        (("mode",), 0),
        (("unban", LISTED), 0),
        (("allow", "add", "192.0.2.77"), 0),
        (("allow", "list"), 0),
        (("why", LISTED), 0),
        (("status", "--no-wait"), 0),
        (("check", LISTED), 3),
        (("list",), 0),
        (("top", "--once", "--interval", "0.1"), 0),
        (("feed", "hold", "show"), 0),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)


def _warned(done: Done, known: str) -> None:
    """Check the one line of warning."""
    lines = [line for line in done.err.splitlines() if "perhaps" in line]
    assert len(lines) == 1, done.err
    assert lines[0].startswith(SAID)
    assert "apiban -t lists them" in lines[0]
    assert known in lines[0]


@VERBS
def test_every_verb_works_with_the_last_good_settings(
    node: NodeOnHost, words: tuple[str, ...], status: int
) -> None:
    """With one line that names the first mistake; the sync process goes on, too."""
    node.write_settings(GOOD)
    node.feed_lists(LISTED)
    with node.syncing():
        node.write_settings(BAD)
        done = node.run(*words)
    assert done.status == status, done.err
    _warned(done, "the last good settings are used")


@VERBS
def test_every_verb_works_when_the_last_good_settings_are_not_known(
    node: NodeOnHost, words: tuple[str, ...], status: int
) -> None:
    """The folders are read as far as they are good."""
    node.feed_lists(LISTED)
    node.write_settings(BAD)
    done = node.run(*words)
    assert done.status == status, done.err
    _warned(done, "has no last good ones")


def test_change_is_in_force_in_spite_of_a_mistake(node: NodeOnHost) -> None:
    """The emergency switch works: it is published before the command ends."""
    node.write_settings(GOOD)
    with node.syncing():
        node.write_settings(BAD)
        done = node.run("mode", "off", "--json")
        assert done.json["in_force"]["seconds"] is not None
        assert (done.json["mode"], done.json["settings"]) == ("off", "shadow")
        assert node.run("ban", LISTED, "--json").json["in_force"]["seconds"] is not None


@pytest.mark.parametrize("address", [PEER, UPSTREAM, ALLOWED, OWN])
def test_whom_the_last_good_settings_exempt_is_not_banned(node: NodeOnHost, address: str) -> None:
    """A ban in the dark would cut off a trunk."""
    node.write_settings(GOOD)
    with node.syncing():
        node.write_settings(BAD)
        done = node.run("ban", address)
    assert done.status == 1
    assert "never banned" in done.err
    assert node.store.count(LOCAL) == 0


def test_nobody_is_banned_when_nobody_knows_who_is_exempt(node: NodeOnHost) -> None:
    """It says so, and changes nothing."""
    node.write_settings(BAD)
    done = node.run("ban", LISTED)
    assert done.status == 1
    assert "whom the settings exempt is not known" in done.err
    assert node.store.count(LOCAL) == 0


def test_mode_that_is_set_in_the_dark_stays(node: NodeOnHost) -> None:
    """Which mode the settings have is not guessed: a guess could end the operator's."""
    node.store.set_state("mode", "shadow", now=node.clock.now())
    node.write_settings(BAD)
    assert node.run("mode", "off").status == 0
    assert node.store.state("mode") == "shadow"
    assert node.run("mode", "--json").json["mode"] == "off"
    override = node.store.mode(node.clock.now())
    assert override is not None
    assert override.mode is Mode.OFF


def test_folders_of_a_file_that_is_no_toml(node: NodeOnHost) -> None:
    """The runtime folder is named; what is kept there names the other, and all else."""
    node.write_settings(GOOD)
    node.feed_lists(LISTED)
    with node.syncing():
        node.file.write_text("mode = enforce\n", encoding="utf-8")
        done = node.run("--runtime", str(node.runtime), "unban", LISTED)
        assert done.status == 0, done.err
        assert "is not TOML" in done.err
        assert "in force" in done.out
        assert node.run("--runtime", str(node.runtime), "ban", PEER).status == 1


def test_no_store_is_made_in_a_folder_that_was_guessed(
    node: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be that of nobody, and the operator would believe in it."""
    empty = node.folder / "empty"
    empty.mkdir()
    node.file.write_text("mode = enforce\n", encoding="utf-8")
    monkeypatch.setenv("APIBAN_PATHS_STATE", str(empty))
    monkeypatch.setenv("APIBAN_PATHS_RUNTIME", str(node.runtime))
    done = node.run("mode", "off")
    assert done.status == 1
    assert "--state" in done.err
    assert list(empty.iterdir()) == []


def test_kept_settings_hold_no_key(node: NodeOnHost) -> None:
    """Whoever may read them."""
    with node.syncing():
        assert KEY not in kept_path(node.runtime).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words", [("config", "check"), ("doctor",), ("sync",), ("-t",), ("check", LISTED, "--remote")]
)
def test_what_needs_good_settings_says_the_mistakes(
    node: NodeOnHost, words: tuple[str, ...]
) -> None:
    """All of them, as before."""
    node.write_settings(BAD)
    done = node.run(*words)
    assert done.status == 1
    assert "mode = perhaps" in done.out + done.err
    assert "log.interval = often" in done.out + done.err


def test_mistake_is_a_warning_of_the_status(node: NodeOnHost) -> None:
    """Also where no sync process runs that would report it."""
    node.write_settings(BAD)
    told = node.run("status", "--json", "--no-wait").json["warnings"]
    (text,) = [one["text"] for one in told if one["code"] == "settings"]
    assert "mode = perhaps" in text


def test_file_of_the_command_line_must_be_there(node: NodeOnHost) -> None:
    """A slip in --settings is no mistake in the settings, and no variable is blamed for it."""
    done = node.run("--settings", str(node.folder / "typo.toml"), "mode", "off")
    assert done.status == 1
    assert done.err == f"apiban: settings: there is no file {node.folder / 'typo.toml'}\n"
    assert node.store.mode(node.clock.now()) is None


def test_file_that_is_closed_to_us_is_no_mistake(
    node: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not read it has no say; nothing is guessed."""

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        done = node.run("mode", "off")
    assert done.status == 1
    assert done.err == f"apiban: {node.file}: cannot be read: Permission denied\n"
    assert node.store.mode(node.clock.now()) is None


def test_top_takes_settings_that_were_mended(
    node: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says the mistake once, not at each look."""
    node.write_settings(BAD)
    frames: list[None] = []

    def sleep(seconds: float) -> None:
        frames.append(None)
        node.clock.tick(6)
        if len(frames) == 3:
            node.write_settings('mode = "off"')

    monkeypatch.setattr("apiban.cli.top.time.sleep", sleep)
    done = node.run("top", "--count", "5")
    assert len([line for line in done.err.splitlines() if "perhaps" in line]) == 1
    heads = [line.split()[2] for line in done.out.splitlines() if line.startswith("apiban top")]
    assert heads[-1] == "off"


# A change that is stored alone -----------------------------------------------------------------

CHANGES = pytest.mark.parametrize(
    "words",
    [
        ("ban", LISTED),
        ("unban", "192.0.2.66"),
        ("allow", "add", LISTED),
        ("allow", "remove", "192.0.2.67"),
        ("mode", "off"),
    ],
)


@CHANGES
@pytest.mark.parametrize("as_json", [False, True])
def test_change_that_a_running_kamailio_has_not(
    node: NodeOnHost, words: tuple[str, ...], *, as_json: bool
) -> None:
    """It is stored, and has a status of its own: a script must not take it for done."""
    now = node.clock.now()
    node.store.ban(networks(["192.0.2.66"]), source=LOCAL, reason="", expires=now + 9, now=now)
    node.store.allow(networks(["192.0.2.67"]), reason="", now=now)
    node.kamailio_starts()
    done = node.run(*words, *(["--json"] if as_json else []))
    assert done.status == 4, done.err
    if as_json:
        assert "no sync process" in done.json["in_force"]["why_not"]
    else:
        assert "stored, not in force yet" in done.err
    assert node.run(*words, "--no-wait").status in ({0, 1} if "remove" in words else {0})
