import dataclasses
import json
from importlib import resources

import pytest
from kamailio_kemi_stubs import lists
from kamailio_kemi_stubs.lists import Function

GET = Function("pv.get", "xval", ("str",))
SETS = Function("pv.sets", "bool", ("str", "str"))
REPLY = Function("sl.send_reply", "int", ("int", "str"))
RECORDED = {function.name: function for function in (GET, SETS, REPLY)}


def record(**changes: object) -> str:
    """Return a small list as JSON, with some of its fields replaced."""
    entry = {"module": "pv", "name": "get", "ret": "xval", "params": ["str"]}
    whole = {"kamailio": "5.6.3", "loaded": ["pv"], "skipped": {}, "functions": [entry]}
    return json.dumps(whole | changes)


def test_both_supported_versions_are_recorded() -> None:
    """5.6 and 6.0 have a list, and the oldest comes first."""
    assert lists.versions() == ("5.6", "6.0")


@pytest.mark.parametrize("version", lists.versions())
def test_list_loads(version: str) -> None:
    """A recorded list has its own version, and hundreds of functions under their own names."""
    whole = lists.load_list(version)
    assert whole.version == version
    assert whole.skipped == {}
    assert len(whole.functions) > 800
    assert all(name == function.name for name, function in whole.functions.items())
    assert lists.load(version) == whole.functions


@pytest.mark.parametrize("version", lists.versions())
@pytest.mark.parametrize(
    "function",
    [
        GET,
        REPLY,
        Function("info", "none", ("str",)),
        Function("set_drop", "none", ()),
        Function("setdsturi", "bool", ("str",)),
        Function("tls.is_peer_verified", "int", ()),
        Function("xhttp_prom.counter_inc_l0", "int", ("str", "int")),
    ],
    ids=str,
)
def test_list_has_what_scripts_use(version: str, function: Function) -> None:
    """Functions that are known from Kamailio's documentation stand in each list as they are."""
    assert lists.load(version)[function.name] == function


def test_file_on_disk_is_what_dump_writes() -> None:
    """A recorded file survives reading and writing unchanged, so that its changes read well."""
    for version in lists.versions():
        whole = lists.load_list(version)
        assert lists.parse(lists.dump(whole)) == whole
        path = resources.files(lists).joinpath(f"{version}.json")
        assert path.read_text(encoding="utf-8") == lists.dump(whole)


def test_unknown_version_is_refused() -> None:
    """A version without a list is named, with those that there are."""
    with pytest.raises(LookupError, match=r"'4\.4'.*5\.6, 6\.0"):
        lists.load("4.4")


def test_version_is_no_path() -> None:
    """A version cannot lead to a file elsewhere."""
    with pytest.raises(LookupError):
        lists.load("../lists/5.6")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "nonsense",
        record(functions=[{"module": "pv", "name": "get"}]),
        record(functions=[{"module": "pv", "name": "get", "ret": "xval", "params": ["float"]}]),
        record(functions=[{"module": "pv", "name": "get", "ret": "var", "params": ["str"]}]),
        record(functions=[{"module": "", "name": "x", "ret": "int", "params": []}] * 2),
        record(skipped=None),
    ],
)
def test_what_is_no_list_is_refused(text: str) -> None:
    """Missing fields, unknown types and doubles raise ValueError."""
    lists.parse(record())
    with pytest.raises(ValueError):
        lists.parse(text)


def test_core_functions_have_no_module() -> None:
    """A function's full name parts into its KEMI module and its own name."""
    assert (GET.module, GET.short) == ("pv", "get")
    core = Function("info", "none", ("str",))
    assert (core.module, core.short) == ("", "info")


def test_equal_lists_do_not_differ() -> None:
    """A list compared with itself shows nothing."""
    difference = lists.compare(RECORDED, dict(RECORDED))
    assert difference.describe() == []
    assert difference.compatible


def test_missing_function_is_found() -> None:
    """A function that went from a module which is still there is missing."""
    live = {name: RECORDED[name] for name in ("pv.get", "sl.send_reply")}
    difference = lists.compare(RECORDED, live)
    assert difference.missing == (SETS,)
    assert not difference.compatible
    assert difference.describe() == ["missing: pv.sets(str, str) -> bool"]


@pytest.mark.parametrize("change", [{"ret": "bool"}, {"params": ("str", "int")}, {"params": ()}])
def test_changed_function_is_found(change: dict[str, object]) -> None:
    """Another return type or other parameters count as a change."""
    other = dataclasses.replace(GET, **change)
    difference = lists.compare(RECORDED, RECORDED | {"pv.get": other})
    assert difference.changed == (lists.Change(GET, other),)
    assert not difference.compatible


def test_module_that_is_not_loaded_is_told_apart() -> None:
    """A KEMI module with nothing live is absent; its functions are not called missing."""
    difference = lists.compare(RECORDED, {"pv.get": GET, "pv.sets": SETS})
    assert difference.absent_modules == ("sl",)
    assert difference.missing == ()
    assert difference.compatible


def test_added_function_does_no_harm() -> None:
    """What only the live list has is named, and leaves the lists compatible."""
    new = Function("pv.getl", "xval", ("str",))
    difference = lists.compare(RECORDED, RECORDED | {"pv.getl": new})
    assert difference.added == (new,)
    assert difference.compatible


def test_what_changed_from_56_to_60() -> None:
    """6.0 keeps all of 5.6 but the three locks of cfgutils, which take a second parameter."""
    difference = lists.compare(lists.load("5.6"), lists.load("6.0"))
    assert difference.absent_modules == ()
    assert difference.missing == ()
    assert [change.recorded.name for change in difference.changed] == [
        "cfgutils.lock",
        "cfgutils.trylock",
        "cfgutils.unlock",
    ]
