import json
import sys
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.cli.main import main
from apiban.store import LOCAL, OPERATOR, UNBAN, Entry, Filter

from tests.unit.cli.node import OWN, NodeOnHost


def _bans(node: NodeOnHost) -> dict[str, Entry]:
    """Give the operator's bans by their networks."""
    return {str(one.network): one for one in node.store.page(Filter(source=LOCAL))}


def test_ban_for_a_time_with_a_reason(node: NodeOnHost) -> None:
    """It is stored with both, and said in a line each."""
    done = node.run("ban", "198.51.100.7", "2001:db8::/48", "--for", "1h", "--reason", "curious")
    assert done.status == 0
    bans = _bans(node)
    assert list(bans) == ["198.51.100.7", "2001:db8::/48"]
    assert {one.reason for one in bans.values()} == {"curious"}
    assert {one.expires for one in bans.values()} == {node.clock.now() + 3600}
    assert len(done.out.splitlines()) == 2
    assert "(in 60 min): curious" in done.out


def test_ban_without_a_time_is_for_good(node: NodeOnHost) -> None:
    """For machines its end is null; without a Kamailio it is stored, with a note, status 0."""
    done = node.run("ban", "198.51.100.7", "--json")
    assert done.status == 0
    assert done.json["banned"] == [{"network": "198.51.100.7", "reason": "", "expires": None}]
    assert done.json["in_force"]["seconds"] is None
    assert "no Kamailio" in done.json["in_force"]["why_not"]
    plain = node.run("ban", "198.51.100.7")
    assert plain.status == 0
    assert "for good" in plain.out
    assert "stored, not in force yet" in plain.err


def test_ban_is_in_force_when_the_command_ends(node: NodeOnHost) -> None:
    """With a sync process the published list has it by then, and the generation is said."""
    with node.syncing():
        done = node.run("ban", "198.51.100.7", "--json")
        assert node.board is not None
        assert node.board.position >= node.store.position()
        assert done.json["in_force"]["generation"] == node.board.generation
        assert done.json["in_force"]["seconds"] < 5
        plain = node.run("unban", "198.51.100.7")
        assert f"generation {node.board.generation}" in plain.out
        assert not node.store.touching(parse_network("198.51.100.7"))


def test_no_wait(node: NodeOnHost) -> None:
    """It says nothing of the workers."""
    done = node.run("ban", "198.51.100.7", "--no-wait", "--json")
    assert done.json["in_force"] is None
    assert list(_bans(node)) == ["198.51.100.7"]


LIST = b"""\xef\xbb\xbf# scanners
198.51.100.1 asked for 100
198.51.100.2\tticket #7

  203.0.113.0/24   # no reason of its own
"""


def _check_list(node: NodeOnHost) -> None:
    reasons = {text: one.reason for text, one in _bans(node).items()}
    assert reasons == {
        "198.51.100.1": "asked for 100",
        "198.51.100.2": "ticket #7",
        "203.0.113.0/24": "from a list",
    }


def test_list_from_the_standard_input(node: NodeOnHost) -> None:
    """Comments, blank lines, a byte-order mark, and reasons of lines' own."""
    assert node.run("ban", "-", "--reason", "from a list", given=LIST).status == 0
    _check_list(node)


def test_list_from_a_file(node: NodeOnHost, tmp_path: Path) -> None:
    """The same from a file, beside addresses on the command line."""
    file = tmp_path / "list"
    file.write_bytes(LIST)
    words = ("ban", "192.0.2.200", "--file", str(file), "--reason", "from a list")
    assert node.run(*words).status == 0
    assert "192.0.2.200" in _bans(node)
    assert len(_bans(node)) == 4


def test_list_is_one_transaction(node: NodeOnHost) -> None:
    """Others see all of it or nothing: one commit, one publication."""
    text = "\n".join(f"198.51.100.{number} reason {number}" for number in range(1, 200))
    node.store.changed_outside()
    commits = []
    with node.syncing():
        assert node.board is not None
        generation = node.board.generation
        done = node.run("ban", "-", given=text)
        commits.append(node.board.generation - generation)
    assert done.status == 0
    assert commits == [1]
    assert "199 banned for good, 199 of them new" in done.out


def test_every_bad_line_is_named_and_nothing_changed(node: NodeOnHost) -> None:
    """What is no address and what must not be banned, each with its line's number."""
    text = f"198.51.100.1\nnonsense\n10.0.0.1/8\n{OWN}\n198.51.100.2 \x1b[31m\n\xff\n"
    done = node.run("ban", "-", given=text.encode("latin-1"))
    assert done.status == 1
    assert done.out == ""
    assert [line.split(":")[1] for line in done.err.splitlines()] == [
        " line 2", " line 3", " line 4", " line 5", " line 6", " 5 of 6 cannot be done"
    ]  # fmt: skip
    assert done.err.isascii()
    assert "\x1b" not in done.err
    assert _bans(node) == {}


def test_skip_bad_does_the_rest(node: NodeOnHost) -> None:
    """What is bad is named, and left out."""
    done = node.run("ban", "-", "--skip-bad", "--json", given=f"198.51.100.1\nnonsense\n{OWN}\n")
    assert done.status == 0
    assert list(_bans(node)) == ["198.51.100.1"]
    assert [one["line"] for one in done.json["refused"]] == [2, 3]
    assert "line 2" in done.err


def test_refused_says_why_and_changes_nothing(node: NodeOnHost) -> None:
    """Status 1 and one line; for machines a document as well."""
    node.store.allow([parse_network("10.0.0.1")], reason="trunk", now=node.clock.now())
    done = node.run("ban", "10.0.0.1", "--json")
    assert done.status == 1
    assert done.json["banned"] == []
    assert done.json["refused"][0]["address"] == "10.0.0.1"
    assert "operator: trunk" in done.json["refused"][0]["why"]
    assert len(done.err.splitlines()) == 1
    both = node.run("ban", "10.0.0.1", "10.0.0.2")
    assert both.status == 1
    assert "1 of 2" in both.err
    assert _bans(node) == {}


def test_range_with_exempt_addresses(node: NodeOnHost) -> None:
    """It is refused unless it is to be banned around them."""
    assert node.run("ban", "192.0.2.0/24").status == 1
    assert node.run("ban", "192.0.2.0/24", "--around").status == 0
    assert node.run("ban", "20.0.0.0/8").status == 1
    assert node.run("ban", "20.0.0.0/8", "--wide").status == 0
    assert list(_bans(node)) == ["20.0.0.0/8", "192.0.2.0/24"]


def test_ban_after_unban(node: NodeOnHost) -> None:
    """The unban's allow entry is lifted, and that is said."""
    node.feed_lists("198.51.100.7")
    node.run("unban", "198.51.100.7")
    done = node.run("ban", "198.51.100.7")
    assert done.status == 0
    assert "1 earlier unban lifted" in done.out
    assert node.store.allow_list() == []


@pytest.mark.parametrize(
    "words",
    [
        ["ban"],
        ["ban", "nonsense"],
        ["ban", "10.0.0.1/8"],
        ["ban", "-", "-"],
        ["ban", "10.0.0.1", "--for", "ever"],
        ["unban"],
        ["allow", "add"],
        ["allow", "add", "-", "--file", "x"],
        ["allow", "remove", "nonsense"],
        ["mode", "perhaps"],
        ["mode", "--for", "1h"],
        ["mode", "settings", "--for", "1h"],
    ],
)
def test_misuse(node: NodeOnHost, words: list[str]) -> None:
    """Status 2, and nothing is written."""
    before = node.store.position()
    done = node.run(*words)
    assert done.status == 2
    assert done.out == ""
    assert node.store.position() == before


def test_list_that_cannot_be_read(node: NodeOnHost, tmp_path: Path) -> None:
    """One line names the file."""
    done = node.run("ban", "--file", str(tmp_path / "missing"))
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "missing" in done.err


def test_empty_list(node: NodeOnHost) -> None:
    """Nothing to do is no failure."""
    before = node.store.position()
    done = node.run("ban", "-", "--json", given="# nobody today\n")
    assert done.status == 0
    assert done.json["banned"] == []
    assert node.store.position() == before


def test_bad_reason(node: NodeOnHost) -> None:
    """A reason that would write on a terminal, or without an end, is refused."""
    assert node.run("ban", "10.0.0.1", "--reason", "\x1b[2J").status == 1
    assert node.run("ban", "10.0.0.1", "--reason", "x" * 201).status == 1
    assert node.run("ban", "10.0.0.1", "--reason", " two\nlines ").status == 0
    assert _bans(node)["10.0.0.1"].reason == "two lines"


def test_store_that_is_not_there_is_made(node: NodeOnHost) -> None:
    """The first ban of a host makes the store; without the folder it says so."""
    node.close()
    for path in node.state.iterdir():
        path.unlink()
    assert node.run("ban", "10.0.0.1").status == 0
    assert json.loads(node.run("unban", "10.0.0.1", "--json").out)["unbanned"]
    for path in node.state.iterdir():
        path.unlink()
    node.state.rmdir()
    done = node.run("ban", "10.0.0.1")
    assert done.status == 1
    assert "paths.state" in done.err


def test_sources_are_kept_apart(node: NodeOnHost) -> None:
    """A ban is the operator's own, beside the feed's entry of the same address."""
    node.feed_lists("198.51.100.7")
    node.run("ban", "198.51.100.7", "--for", "1h")
    sources = [one.source for one in node.store.find(parse_network("198.51.100.7"))]
    assert sorted(sources) == ["apiban", LOCAL]
    assert not [one for one in node.store.allow_list() if one.source in (OPERATOR, UNBAN)]


# What no list is ---------------------------------------------------------------------------------


def test_list_without_an_end_is_refused(node: NodeOnHost) -> None:
    """It is not read on and on."""
    done = node.run("ban", "--file", "/dev/zero")
    assert (done.status, done.out) == (1, "")
    assert "/dev/zero: more than 50,000 lines at a time" in done.err


def test_list_that_would_keep_others_out_is_refused(node: NodeOnHost) -> None:
    """The store is locked while it is written."""
    done = node.run("ban", "-", given="\n" * 50_001)
    assert done.status == 1
    assert "more than 50,000 lines" in done.err


def test_list_of_rubbish_is_said_in_a_few_lines(node: NodeOnHost) -> None:
    """All of it is in the document for machines."""
    rubbish = b"\x1b[31mred\n" * 300
    done = node.run("ban", "-", given=rubbish)
    assert done.status == 1
    assert len(done.err.splitlines()) == 102
    assert "and 200 more" in done.err
    assert "\x1b" not in done.err
    assert len(node.run("ban", "-", "--json", given=rubbish).json["refused"]) == 300


def test_standard_input_that_is_closed(
    node: NodeOnHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is an error of one line, and no fault."""
    monkeypatch.setattr(sys, "argv", ["apiban", "ban", "-"])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert capsys.readouterr().err == "apiban: the standard input is closed\n"
    assert not _bans(node)


def test_what_others_call_an_exempt_address_is_escaped(node: NodeOnHost) -> None:
    """A tag of Kamailio's permissions may hold anything."""
    node.store.set_allowed(
        "permissions", {parse_network("198.51.100.7"): "\x1b[2Jtrunk"}, now=node.clock.now()
    )
    node.feed_lists("198.51.100.7")
    for verb in ("ban", "unban", "check", "why"):
        done = node.run(verb, "198.51.100.7")
        assert "\\x1b[2Jtrunk" in done.out + done.err
        assert "\x1b" not in done.out + done.err


def test_address_that_is_named_twice_keeps_its_reason(node: NodeOnHost) -> None:
    """The first that is not empty."""
    listed = "198.51.100.7\n198.51.100.7 scans\n198.51.100.7 floods\n198.51.100.7\n"
    assert node.run("ban", "-", given=listed).status == 0
    assert [one.reason for one in _bans(node).values()] == ["scans"]


# By programs -----------------------------------------------------------------------------------


def test_program_shortens_no_ban(node: NodeOnHost) -> None:
    """The operator's own that lasts longer stays, with its reason; a shorter one is extended."""
    node.run("ban", "198.51.100.7", "--reason", "by hand")
    node.run("ban", "198.51.100.8", "--for", "1m")
    words = (
        "ban",
        "198.51.100.7",
        "198.51.100.8",
        "--automatic",
        "--for",
        "1h",
        "--reason",
        "jail",
    )
    told = node.run(*words, "--json").json
    assert [one["network"] for one in told["kept"]] == ["198.51.100.7"]
    assert [one["network"] for one in told["banned"]] == ["198.51.100.8"]
    (kept,) = node.store.find(parse_network("198.51.100.7"))
    assert kept.reason == "by hand"
    (longer,) = node.store.find(parse_network("198.51.100.8"))
    assert (longer.expires, longer.reason) == (node.clock.now() + 3600, "jail")
    assert "198.51.100.7 stays banned for good" in node.run(*words).out


def test_program_bans_nobody_who_was_unbanned(node: NodeOnHost) -> None:
    """An operator's ban lifts his earlier unban; a program's is refused with one line."""
    node.feed_lists("198.51.100.7")
    node.run("unban", "198.51.100.7", "--reason", "a customer")
    done = node.run("ban", "198.51.100.7", "--automatic")
    assert (done.status, done.out) == (1, "")
    assert done.err == "apiban: 198.51.100.7 is never banned: allowed by unban: a customer\n"
    assert node.run("check", "198.51.100.7").status == 0
    assert node.run("ban", "198.51.100.7").status == 0
    assert node.run("check", "198.51.100.7").status == 3
