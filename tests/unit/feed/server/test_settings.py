from pathlib import Path

import pytest
from apiban.errors import SettingsError
from apiban.feed.server.settings import ServerSettings, load_server_settings


def load(folder: Path, text: str, mode: int = 0o644) -> ServerSettings:
    """Read a file with this text and mode."""
    path = folder / "feed.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return load_server_settings(path, {})


def problems(folder: Path, text: str, mode: int = 0o644) -> tuple[str, ...]:
    """Give what is wrong with it."""
    with pytest.raises(SettingsError) as caught:
        load(folder, text, mode)
    return caught.value.problems


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://feed:hush@db:1x/feed",
        "postgresql:/feed",
        "mysql://feed:hush@db/feed",
        "sqlite:///relative.db",
        "hush",
        "",
    ],
)
def test_bad_database(tmp_path: Path, url: str) -> None:
    """One line that names the setting and what is allowed, and nothing of a password."""
    (problem,) = problems(tmp_path, f'database.url = "{url}"', 0o600)
    assert problem.startswith("database.url = ")
    assert "postgresql://USER@HOST/NAME" in problem
    assert "hush" not in problem
    assert "sh@" not in problem


@pytest.mark.parametrize(
    "text",
    [
        'database.url = "postgresql://feed:hush@db/feed"',
        'database.url = "postgresql://feed@db/feed?password=hush"',
        'mirror.url = "https://x.example/"\nmirror.key = "hush"',
        'mail.password = "hush"',
    ],
)
def test_file_with_a_secret_is_not_for_others(tmp_path: Path, text: str) -> None:
    """Said by the setting's name; the same file for its group alone is good."""
    (problem,) = problems(tmp_path, text)
    assert "others can read" in problem
    assert "hush" not in problem
    load(tmp_path, text, 0o640)


def test_clear_text_beyond_loopback(tmp_path: Path) -> None:
    """Keys travel in it: a certificate, or an operator's word."""
    (problem,) = problems(tmp_path, 'serve.host = "0.0.0.0"')
    assert "serve.certificate" in problem
    load(tmp_path, 'serve.host = "0.0.0.0"\nserve.allow_http = true')


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('mirror.url = "https://x.example/"', "mirror.key"),
        ('mirror.url = "http://192.0.2.1/"\nmirror.key = "k"', "must be https"),
        ('mail.host = "mx"\nmail.link = "https://f/"', "mail.sender"),
        ('mail.host = "mx"\nmail.sender = "a@b"', "mail.link"),
        ('serve.certificate = "/etc/hostname"', "set both, or none"),
        ('curation.never_file = "/nowhere"', "there is no such file"),
        ("curation.sightings = 0", "from 1 to"),
        ("what = 1", "docs/feed.md lists them"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, text: str, named: str) -> None:
    """Each is said."""
    assert any(named in problem for problem in problems(tmp_path, text, 0o600))


def test_mirror_takes_a_nodes_defaults(tmp_path: Path) -> None:
    """What is not said of it is as in a node."""
    settings = load(
        tmp_path,
        'mirror.url = "https://x.example/api"\nmirror.key = "k"\nmirror.version = 2',
        0o600,
    )
    assert settings.mirror is not None
    assert settings.mirror.url == "https://x.example/api/"
    assert (settings.mirror.version, settings.mirror.max_entries) == (2, 1_000_000)


def test_misspelt_variable(tmp_path: Path) -> None:
    """A variable that means nothing is a mistake."""
    with pytest.raises(SettingsError, match="APIBAN_SERVER_SERVE_PROT"):
        load_server_settings(tmp_path / "none.toml", {"APIBAN_SERVER_SERVE_PROT": "1"})
