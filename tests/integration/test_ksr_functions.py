"""The KSR functions that the package calls exist on the Kamailio that is installed here."""

from __future__ import annotations

import re

import pytest
from apiban.log import EVENTS
from apiban.trial.kamailio import SCRIPT
from kamailio_kemi_stubs import lists, live

pytestmark = pytest.mark.kamailio

_CALL = re.compile(r"\b(?:_ksr|ksr|KSR)\.([a-z_0-9]+(?:\.[a-z_0-9]+)?)\b")


def used() -> set[str]:
    """Find the names that the package and the shim take from KSR."""
    names = set(EVENTS.values())  # the log levels are taken by name
    for path in (SCRIPT, *(SCRIPT.parent / "apiban" / "kemi").glob("*.py")):
        names.update(_CALL.findall(path.read_text(encoding="utf-8")))
    return names


def test_names_are_found() -> None:
    """The search sees core functions and those of modules."""
    assert {"set_drop", "pv.get", "tm.t_relay", "sl.send_reply", "err"} <= used()


def test_every_function_is_there_with_the_types_that_we_use() -> None:
    """On this version each is exported, and takes and gives what our oldest version's does."""
    recorded, there = lists.load("5.6"), live.read().functions
    modules = {name.partition(".")[0] for name in there if "." in name}
    for name in sorted(used() - modules):  # a module is taken whole here and there
        assert name in there, name
        assert (there[name].params, there[name].ret) == (
            recorded[name].params,
            recorded[name].ret,
        ), name
