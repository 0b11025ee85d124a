import contextlib
import tempfile
from pathlib import Path

import pytest
from apiban.errors import ApibanError
from apiban.feed.server.listfile import read_list
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a list."""
    return tmp_path / "list.txt"


def test_list_is_read(path: Path) -> None:
    """An address or a network a line; comments, empty lines and Windows' line ends are fine."""
    path.write_bytes(
        b"# scanners\n192.0.2.1\n\n  198.51.100.0/24  # a whole block\r\n2001:DB8::1\r\n"
        b"::ffff:192.0.2.2\n192.0.2.1 # again\n203.0.113.9"
    )
    assert [str(one) for one in read_list(path)] == [
        "192.0.2.1",
        "198.51.100.0/24",
        "2001:db8::1",
        "192.0.2.2",
        "203.0.113.9",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but words\n"])
def test_empty_list_is_a_list(path: Path, text: str) -> None:
    """Nobody is listed."""
    path.write_text(text, encoding="ascii")
    assert read_list(path) == []


@pytest.mark.parametrize(
    "bad", ["scanner.example", "192.0.2.1/24", "192.0.2.1 192.0.2.2", "192.0.2.1,", "192.0.2.256"]
)
def test_bad_line_is_named(path: Path, bad: str) -> None:
    """File, line and what stands there."""
    path.write_text(f"# list\n192.0.2.1\n\n{bad}\n192.0.2.3\n", encoding="ascii")
    with pytest.raises(ApibanError) as caught:
        read_list(path)
    assert str(caught.value).startswith(f"{path}, line 4: ")
    assert repr(bad) in str(caught.value)


def test_first_bad_line_is_the_one_named(path: Path) -> None:
    """Reading ends there."""
    path.write_text("x\ny\n", encoding="ascii")
    with pytest.raises(ApibanError, match="line 1: "):
        read_list(path)


def test_missing_list_is_named(path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(ApibanError, match=r"list\.txt: No such file"):
        read_list(path)


def test_folder_is_no_list(tmp_path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(ApibanError, match="Is a directory"):
        read_list(tmp_path)


def test_binary_file_is_no_list(path: Path) -> None:
    """It is said to be no text, and nothing of it is shown."""
    path.write_bytes(b"192.0.2.1\n\xff\xfe")
    with pytest.raises(ApibanError, match="is not UTF-8 text"):
        read_list(path)


@settings(deadline=None)
@given(st.binary() | st.text(alphabet="0123456789abcdef.:/# \n\r").map(str.encode))
def test_any_bytes_give_a_list_or_the_typed_error(raw: bytes) -> None:
    """Nothing else gets out of an operator's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "list")
        path.write_bytes(raw)
        with contextlib.suppress(ApibanError):
            assert len(read_list(path)) <= raw.count(b"\n") + raw.count(b"\r") + 1
