import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.feed.server import Catalog
from apiban.feed.server import __main__ as program
from apiban.settings import FileWatch

from tests.unit.feed.parts import KEY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a list of one address."""
    path = tmp_path / "list.txt"
    path.write_text("192.0.2.1\n", encoding="ascii")
    return path


@pytest.fixture
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clients' key."""
    monkeypatch.setenv("APIBAN_FEED_SERVER_KEY", KEY)


@pytest.mark.parametrize("key", [None, ""])
def test_no_key_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str | None
) -> None:
    """A feed without a key would be open to everybody."""
    monkeypatch.delenv("APIBAN_FEED_SERVER_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("APIBAN_FEED_SERVER_KEY", key)
    assert program.main(["--list", str(path)]) == 2
    assert "APIBAN_FEED_SERVER_KEY is not set" in capsys.readouterr().err


@pytest.mark.usefixtures("_key")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "feed.example", ""])
def test_listening_beyond_loopback_is_refused(
    path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    """Keys would travel in clear text, unless the operator says that they may."""
    assert program.main(["--list", str(path), "--host", host]) == 2
    err = capsys.readouterr().err
    assert "clear text" in err
    assert KEY not in err


@pytest.mark.usefixtures("_key")
def test_bad_list_is_refused_with_its_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At its start the server has no last good list to fall back on."""
    path.write_text("192.0.2.1\nscanner\n", encoding="ascii")
    assert program.main(["--list", str(path)]) == 2
    assert f"{path}, line 2: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["--list"], ["--list", "x", "--port", "http"], ["--list", "x", "--requests", "1.5"]],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The usage, and argparse's status."""
    with pytest.raises(SystemExit) as caught:
        program.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_changed_list_is_followed(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A good list is taken; a bad one, and none, is said, and the last good one stays."""
    monkeypatch.setattr(program, "_LOOK_EVERY", 0)
    catalog = Catalog([parse_network("192.0.2.1")], now=1.8e9)

    def write(text: str) -> Callable[[], object]:
        return lambda: path.write_text(text, encoding="ascii")

    # What is done to the file, what is said of it, and how many are listed then.
    steps: list[tuple[Callable[[], object], str, int]] = [
        (write("192.0.2.1\n192.0.2.2\n"), "", 2),
        (write("192.0.2.1\nscanner\n192.0.2.9\n"), "line 2", 2),
        (path.unlink, "No such file", 2),
        (write("192.0.2.3\n"), "", 1),
    ]

    async def follow() -> None:
        follower = asyncio.create_task(program._follow(catalog, path, FileWatch(path)))
        for act, said, count in steps:
            await asyncio.sleep(0)  # the follower takes a look
            act()
            for _ in range(5):
                await asyncio.sleep(0)
            err = capsys.readouterr().err
            assert (said in err) if said else not err
            assert len(catalog) == count
        follower.cancel()

    asyncio.run(follow())
