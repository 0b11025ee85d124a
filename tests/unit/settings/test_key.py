import copy
import dataclasses
import json
import pickle
import traceback
from pathlib import Path

import pytest
from apiban.errors import SettingsError
from apiban.settings import Secret

from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.samples import KEY

# The places of a key, the strongest first.
PLACES = ("APIBAN_KEY", "APIBANKEY", "APIBAN_FEED_KEY", "feed.key")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Give a good file with a key."""
    path = tmp_path / "key"
    path.write_text("from-file\n", encoding="ascii")
    path.chmod(0o640)
    return path


@pytest.mark.parametrize("count", range(len(PLACES)))
def test_strongest_place_wins(load: Load, count: int) -> None:
    """APIBAN_KEY, kamcli's APIBANKEY, APIBAN_FEED_KEY, then the file."""
    places = PLACES[count:]
    environ = {name: f"from-{name}" for name in places if name != "feed.key"}
    settings = load('feed.key = "from-feed.key"', environ)
    assert settings.feed.key.reveal() == f"from-{places[0]}"


@pytest.mark.parametrize("place", PLACES[:3])
def test_environment_beats_the_key_file(load: Load, key_file: Path, place: str) -> None:
    """A key in the environment is taken without a look at the file of it."""
    settings = load(f'feed.key_file = "{key_file}"', {place: KEY})
    assert settings.feed.key.reveal() == KEY


def test_empty_variables_do_not_count(load: Load) -> None:
    """An empty variable is what a container's template leaves behind."""
    environ = {"APIBAN_KEY": "", "APIBANKEY": "", "APIBAN_FEED_KEY": ""}
    assert load(f'feed.key = "{KEY}"', environ).feed.key.reveal() == KEY
    assert not load("", environ).feed.key


def test_key_file_is_read(load: Load, key_file: Path) -> None:
    """Its line break is not part of the key."""
    assert load(f'feed.key_file = "{key_file}"').feed.key.reveal() == "from-file"
    variable = {"APIBAN_FEED_KEY_FILE": str(key_file)}
    assert load("", variable).feed.key.reveal() == "from-file"


def test_key_and_key_file_together_are_refused(problems: Problems, key_file: Path) -> None:
    """Which of the two counts would be anybody's guess."""
    (problem,) = problems(f'feed.key = "{KEY}"\nfeed.key_file = "{key_file}"')
    assert "one of the two" in problem
    assert KEY not in problem


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o777])
def test_key_file_that_others_can_read_is_refused(
    problems: Problems, key_file: Path, mode: int
) -> None:
    """The problem names the file and the remedy."""
    key_file.chmod(mode)
    (problem,) = problems(f'feed.key_file = "{key_file}"')
    assert str(key_file) in problem
    assert "chmod o-r" in problem


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o400, 0o440])
def test_key_file_of_owner_and_group_is_taken(load: Load, key_file: Path, mode: int) -> None:
    """root:kamailio 0640 is how it is shipped."""
    key_file.chmod(mode)
    assert load(f'feed.key_file = "{key_file}"').feed.key


def test_link_to_a_key_file_is_judged_by_the_file(
    load: Load, problems: Problems, key_file: Path, tmp_path: Path
) -> None:
    """A link is open to all in itself, as secrets are often mounted; the file's mode counts."""
    link = tmp_path / "link"
    link.symlink_to(key_file)
    assert load(f'feed.key_file = "{link}"').feed.key
    key_file.chmod(0o644)
    (problem,) = problems(f'feed.key_file = "{link}"')
    assert "others can read" in problem


def test_settings_file_with_a_key_that_others_can_read_is_refused(
    load: Load, problems: Problems
) -> None:
    """A key in the file makes the file a secret; without one it is none."""
    (problem,) = problems(f'feed.key = "{KEY}"', mode=0o644)
    assert "others can read" in problem
    assert KEY not in problem
    assert load(f'feed.key = "{KEY}"', mode=0o640).feed.key
    assert load("feed.interval = 5", mode=0o644).feed.interval == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"two words\n", "one word"),
        (b"two\nlines\n", "one word"),
        (b"k\xc3\xa9y\n", "one word"),
        (b"\xff\xfe\0", "one word"),
        (b"k\0y", "one word"),
        (b"k" * 513, "one word"),
        (b"k" * 100_000, "one word"),
    ],
)
def test_key_file_without_a_key_is_refused(
    problems: Problems, key_file: Path, content: bytes, said: str
) -> None:
    """An empty, binary or huge file holds no key; its content is not shown."""
    key_file.write_bytes(content)
    (problem,) = problems(f'feed.key_file = "{key_file}"')
    assert problem.startswith("feed.key_file")
    assert said in problem
    assert "kk" not in problem


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_key_file_that_cannot_be_read_is_refused(
    problems: Problems, tmp_path: Path, name: str
) -> None:
    """A file that is not there, and a folder."""
    (problem,) = problems(f'feed.key_file = "{tmp_path / name}"')
    assert problem.startswith("feed.key_file = ")
    assert "cannot be read" in problem


@pytest.mark.parametrize(
    "bad", [f"{KEY} x", f"{KEY}\u00e9", f"\t{KEY}", f"{KEY}\n", f"{KEY}\x7f", KEY * 35]
)
@pytest.mark.parametrize("place", PLACES)
def test_bad_key_is_not_shown(problems: Problems, place: str, bad: str) -> None:
    """Most bad keys are good keys with a slip: the problem names the place, and shows nothing."""
    if place == "feed.key":
        found = problems(f"feed.key = {json.dumps(bad)}")
    else:
        found = problems("", {place: bad})
    assert len(found) == 1
    assert found[0].startswith(place)
    assert KEY not in found[0]


def test_longest_key_is_taken(load: Load) -> None:
    """512 printable characters, with whatever signs."""
    key = "k/%?#&\"'" * 64
    assert load("", {"APIBAN_KEY": key}).feed.key.reveal() == key


def test_secret_hides_its_text() -> None:
    """Every usual way of showing it gives the mask."""
    secret = Secret(KEY)
    shown = [str(secret), repr(secret), f"{secret}", format(secret), f"{secret!s:>99}"]
    for text in (*shown, str([secret]), json.dumps({"key": secret}, default=str)):
        assert KEY not in text
        assert "********" in text


def test_secret_tells_apart_empty_and_set() -> None:
    """It can be asked whether there is one, and compared; its hash fits."""
    assert not Secret()
    assert (str(Secret()), repr(Secret())) == ("", "Secret('')")
    assert Secret(KEY)
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY
    assert len({Secret(KEY), Secret(KEY)}) == 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_secret_is_not_pickled(load: Load, protocol: int) -> None:
    """Neither by itself nor within the settings."""
    for holder in (Secret(KEY), load("", {"APIBAN_KEY": KEY})):
        with pytest.raises(TypeError) as caught:
            pickle.dumps(holder, protocol)
        assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("spec", [">20", "s", "x"])
def test_secret_with_a_format_is_refused_without_its_text(spec: str) -> None:
    """A padded format does not open it."""
    with pytest.raises(TypeError) as caught:
        format(Secret(KEY), spec)
    assert KEY not in str(caught.value)


def test_secret_has_no_dictionary_to_print() -> None:
    """A debugger's or a logger's vars() finds nothing."""
    with pytest.raises(TypeError):
        vars(Secret(KEY))


def test_settings_do_not_show_the_key(load: Load) -> None:
    """The records that hold it can be printed, and name everything else."""
    settings = load("feed.version = 2", {"APIBAN_KEY": KEY})
    for text in (repr(settings), str(settings), f"{settings.feed}", settings.feed.identity):
        assert KEY not in text
    assert "********" in repr(settings)
    assert "version=2" in repr(settings)


@pytest.mark.parametrize("expose", [copy.deepcopy, dataclasses.asdict, dataclasses.astuple])
def test_settings_are_not_taken_apart(load: Load, expose: object) -> None:
    """What copies every field deeply does not copy the key into the open."""
    settings = load("", {"APIBAN_KEY": KEY})
    with pytest.raises(TypeError) as caught:
        expose(settings)  # type: ignore[operator]
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        'feed.key = ["{}"]',
        'feed.key = {{ a = "{}" }}',
        'feed.key = "{} "',
        'feed.key = "{}"\nfeed.key_file = "/"',
        'feed.key = "{}"\nfeed.intervall = 1\nmode = 5',
        'feed.key = "{}',
        "feed.key = {}",
        'feed.key = "{}\\q"',
        'feed.key = "{0}"\nfeed.key = "{0}"',
        'key = "{}"',
        'feed.apikey = "{}"',
        '[feed]\n[feed.key]\nkey = "{}"',
        'feed.key = "{}\N{BLACK HEART SUIT}"',
    ],
)
def test_key_is_in_no_error(load: Load, text: str) -> None:
    """However the file is broken, the error and its traceback do not show what the key was."""
    with pytest.raises(SettingsError) as caught:
        load(text.format(KEY), mode=0o644)
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in "".join(traceback.format_exception(error))
        error = error.__cause__ or error.__context__
    assert KEY not in repr(caught.value.problems)
