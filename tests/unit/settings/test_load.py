import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from apiban.errors import SettingsError
from apiban.settings import DEFAULT_PATH, Settings, load_settings, settings_path
from apiban.settings.schema import SCHEMA
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.samples import KEY

ASSIGNABLE = st.sampled_from(
    [*(setting.name for setting in SCHEMA), "feed", "mode.x", "paths", "feed.nothing", "none.x"]
)
LEAVES = (
    st.integers()
    | st.floats()
    | st.booleans()
    | st.text()
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.sampled_from(["/", "/tmp", "https://x/", "http://x/", "192.0.2.1", "sip:192.0.2.1", ""])
)
JUNK = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


def toml(value: Any) -> str:
    """Write any such value as TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


def load_bytes(raw: bytes, environ: Mapping[str, str]) -> Settings | SettingsError:
    """Load a file of these bytes; any error but the typed one gets out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "apiban.toml")
        path.write_bytes(raw)
        path.chmod(0o640)
        try:
            return load_settings(path, environ)
        except SettingsError as error:
            return error


def test_toml_of_the_tests_is_toml() -> None:
    """The junk reaches the settings as the value that was drawn."""
    good = {"feed.interval": 5, "paths.state": "/\x7f\u00e9\n", "allow.networks": ["192.0.2.1"]}
    raw = "".join(f"{name} = {toml(value)}\n" for name, value in good.items())
    loaded = load_bytes(raw.encode(), {})
    assert isinstance(loaded, Settings)
    assert (loaded.feed.interval, loaded.paths.state) == (5, Path("/\x7f\u00e9\n"))


@settings(deadline=None)
@given(st.dictionaries(ASSIGNABLE, JUNK, max_size=4))
def test_junk_values_give_settings_or_the_typed_error(values: dict[str, object]) -> None:
    """No value of TOML, at any setting or section, gets another exception out."""
    raw = "".join(f"{name} = {toml(value)}\n" for name, value in values.items())
    loaded = load_bytes(raw.encode(), {})
    if isinstance(loaded, SettingsError):
        assert loaded.problems
        assert all(loaded.problems)


@settings(deadline=None)
@given(JUNK, st.sampled_from([setting.name for setting in SCHEMA]))
def test_key_beside_junk_is_never_shown(value: object, name: str) -> None:
    """Whatever else is wrong in the file, its key stays out of the errors."""
    if name.startswith("feed.key"):
        name = "feed.key"
        raw = f"{name} = [{toml(KEY)}, {toml(value)}]"
    else:
        raw = f"feed.key = {toml(KEY)}\n{name} = {toml(value)}"
    loaded = load_bytes(raw.encode(), {})
    assert KEY not in str(loaded)
    assert KEY not in repr(loaded)


@settings(deadline=None)
@given(
    st.binary() | st.text(alphabet="abfed.kymo=[]{}\"'\\#\n 019-:T", max_size=60).map(str.encode)
)
def test_any_bytes_give_settings_or_the_typed_error(raw: bytes) -> None:
    """A file of anything is refused politely."""
    load_bytes(raw, {})


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["APIBAN_KEY", "APIBANKEY", *(setting.variable for setting in SCHEMA)],
        ),
        st.text() | st.sampled_from(["", "1", "/", "nan", "inf", "1e999", "https://x", "[::"]),
        max_size=4,
    )
)
def test_any_environment_gives_settings_or_the_typed_error(environ: dict[str, str]) -> None:
    """A variable of anything is refused politely."""
    load_bytes(b"", environ)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"feed.url = ", "is not TOML"),
        (b"[feed\n", "is not TOML"),
        (b"mode = 'off'\nmode = 'off'", "is not TOML"),
        (b'mode = "\xff"', "is not UTF-8"),
        (b"\xff\xfem\0o\0d\0e\0", "is not UTF-8"),
        (b"\0\1\2", "is not TOML"),
        (b"#" * (1 << 16) + b"#", "over 65536 bytes"),
        (b"x = " + b"[" * 20_000, "is not TOML"),
    ],
)
def test_file_that_is_no_settings_file(problems: Problems, raw: bytes, said: str) -> None:
    """Cut off, binary, huge or deep: one problem, which names the file."""
    (problem,) = problems(raw)
    assert "apiban.toml" in problem
    assert said in problem
    assert len(problem) < 500


def test_largest_file_is_read(load: Load) -> None:
    """1 MiB of comments hides no setting."""
    text = "feed.interval = 5\n"
    assert load(text + "#" * ((1 << 16) - len(text))).feed.interval == 5


def test_toml_mistake_gives_its_place(problems: Problems) -> None:
    """The operator gets line and column."""
    (problem,) = problems("mode = 'off'\nfeed.interval = never\n")
    assert "line 2, column 17" in problem


def test_mistake_in_the_file_does_not_hide_those_of_the_environment(problems: Problems) -> None:
    """A file that cannot be read is one problem among others."""
    found = problems("[", {"APIBAN_MODE": "on"})
    assert [problem.partition(" = ")[0] for problem in found][1:] == ["APIBAN_MODE"]


@pytest.mark.parametrize("value", ["5", '"text"', "true", "[]", "[{ url = 1 }]", "1979-05-27"])
@pytest.mark.parametrize("section", ["feed", "allow", "node", "edge", "log", "paths"])
def test_section_must_be_a_section(problems: Problems, section: str, value: str) -> None:
    """A value where a section belongs says so."""
    (problem,) = problems(f"{section} = {value}")
    # The value stays out of it: somebody may have written feed = "the key".
    assert problem == f"{section}: must be a section, [{section}], not a value"


def test_array_of_sections_is_refused(problems: Problems) -> None:
    """[[feed]] is a list of sections."""
    (problem,) = problems("[[feed]]\ninterval = 5")
    assert "must be a section, [feed]" in problem


def test_section_where_a_value_belongs_is_refused(problems: Problems) -> None:
    """[mode] is not mode."""
    (problem,) = problems("[mode]\nx = 1")
    assert problem.startswith("mode = ")


@pytest.mark.parametrize("text", ["intervall = 5", "[feed]\nintervall = 5", "[feeds]\nurl = 1"])
def test_unknown_name_is_refused(problems: Problems, text: str) -> None:
    """A slip in a name is not ignored: what it was meant to set would stay unset."""
    (problem,) = problems(text)
    assert "no such setting" in problem


def test_unknown_name_cannot_break_the_line(problems: Problems) -> None:
    """A name may be any text in TOML."""
    (problem,) = problems('"a\\nb" = 1')
    assert "\n" not in problem


def test_folder_is_no_settings_file(tmp_path: Path) -> None:
    """A path that is there and cannot be read is a problem, not defaults."""
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, {})


def test_file_without_permission_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that the kernel refuses to us (never to root) is a problem, not defaults."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SettingsError, match=r"a\.toml: cannot be read: Permission denied"):
        load_settings(Path("/a.toml"), {})


def test_missing_file_means_defaults(tmp_path: Path) -> None:
    """Everything can be set by the environment."""
    loaded = load_settings(tmp_path / "none.toml", {"APIBAN_FEED_INTERVAL": "7"})
    assert loaded.feed.interval == 7


def test_missing_file_that_was_asked_for_is_a_problem(tmp_path: Path) -> None:
    """APIBAN_SETTINGS with a slip in it must not start an unprotected node."""
    environ = {"APIBAN_SETTINGS": str(tmp_path / "none.toml")}
    with pytest.raises(SettingsError, match="there is no file"):
        load_settings(settings_path(environ), environ)


def test_file_that_must_exist(tmp_path: Path) -> None:
    """A file that is gone, or was emptied, while Kamailio runs is a problem, not defaults."""
    path = tmp_path / "apiban.toml"
    with pytest.raises(SettingsError, match="is gone"):
        load_settings(path, {}, must_exist=True)
    path.touch()
    with pytest.raises(SettingsError, match="is empty"):
        load_settings(path, {}, must_exist=True)
    path.write_text("feed.interval = 5\n", encoding="ascii")
    assert load_settings(path, {}, must_exist=True).feed.interval == 5


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, DEFAULT_PATH),
        ({"APIBAN_SETTINGS": ""}, DEFAULT_PATH),
        ({"APIBAN_SETTINGS": "/srv/a.toml"}, Path("/srv/a.toml")),
    ],
)
def test_path_of_the_settings(environ: dict[str, str], path: Path) -> None:
    """The variable, or the place where the packages put it."""
    assert settings_path(environ) == path


def test_settings_are_frozen(load: Load) -> None:
    """What was checked stays as it was checked."""
    loaded = load()
    for record, name in ((loaded, "mode"), (loaded.feed, "url"), (loaded.paths, "state")):
        with pytest.raises(AttributeError):
            setattr(record, name, None)


def test_error_holds_every_problem() -> None:
    """The error's text is all its problems, in one line."""
    error = SettingsError(("a", "b"))
    assert (error.problems, str(error)) == (("a", "b"), "a; b")


def test_environment_of_the_process_is_not_looked_at(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the mapping that was given counts."""
    monkeypatch.setenv("APIBAN_MODE", "nonsense")
    assert str(load().mode) == "enforce"
