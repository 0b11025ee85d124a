"""The functions that each Kamailio release exports to KEMI, as it listed them itself.

A list is recorded by ``generate.py`` from a running Kamailio (``app_python.api_list``) and kept
as ``<major.minor>.json`` beside this module.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

__all__ = [
    "PARAM_TYPES",
    "RETURN_TYPES",
    "Change",
    "Difference",
    "Function",
    "KemiList",
    "compare",
    "dump",
    "load",
    "load_list",
    "parse",
    "versions",
]

PARAM_TYPES = frozenset({"int", "long", "str"})
RETURN_TYPES = frozenset({"bool", "int", "none", "xval"})


@dataclass(frozen=True)
class Function:
    """One exported function, as in ``KSR.<name>(<params>) -> <ret>``.

    ``name`` is what follows ``KSR.``: ``"pv.get"``, or ``"info"`` for one of the core.
    ``params`` are from ``PARAM_TYPES`` and ``ret`` is from ``RETURN_TYPES``.
    """

    name: str
    ret: str
    params: tuple[str, ...]

    @property
    def module(self) -> str:
        """The KEMI module (``"pv"``); empty for a function of the core."""
        return self.name.rpartition(".")[0]

    @property
    def short(self) -> str:
        """The name inside its module."""
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.params)}) -> {self.ret}"


@dataclass(frozen=True)
class KemiList:
    """What one Kamailio exports.

    ``kamailio`` is its full version (``"5.6.3"``), ``loaded`` are the Kamailio modules that were
    loaded when it was asked, and ``skipped`` says why others were not. ``functions`` has one
    entry a function, by full name.
    """

    kamailio: str
    loaded: tuple[str, ...]
    skipped: Mapping[str, str]
    functions: Mapping[str, Function]

    @property
    def version(self) -> str:
        """``major.minor``, the name under which the list is recorded."""
        return ".".join(self.kamailio.split(".")[:2])


@dataclass(frozen=True)
class Change:
    """A function whose parameters or return type differ between two lists."""

    recorded: Function
    live: Function


@dataclass(frozen=True)
class Difference:
    """How a live list differs from a recorded one.

    ``absent_modules`` are KEMI modules of which the live list has nothing at all (their package
    is not installed, or the module not loaded): their functions are not counted as missing.
    """

    absent_modules: tuple[str, ...]
    missing: tuple[Function, ...]
    changed: tuple[Change, ...]
    added: tuple[Function, ...]

    @property
    def compatible(self) -> bool:
        """Whether everything recorded works as recorded, in the modules that are there."""
        return not self.missing and not self.changed

    def describe(self) -> list[str]:
        """One line a difference, for messages."""
        return [
            *(f"absent module: {name}" for name in self.absent_modules),
            *(f"missing: {function}" for function in self.missing),
            *(f"changed: {change.recorded} is now {change.live}" for change in self.changed),
            *(f"added: {function}" for function in self.added),
        ]


def versions() -> tuple[str, ...]:
    """Return the recorded versions, oldest first: ``("5.6", "6.0")``."""
    names = (entry.name for entry in resources.files(__name__).iterdir())
    found = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return tuple(sorted(found, key=lambda version: [int(part) for part in version.split(".")]))


def load(version: str) -> dict[str, Function]:
    """Return the functions recorded for a version (``"5.6"``), by full name.

    Raises ``LookupError`` when there is no list of that version, and ``ValueError`` when the
    file is not one.
    """
    return dict(load_list(version).functions)


@cache  # a fake is made for each test, and the lists are long
def load_list(version: str) -> KemiList:
    """Return the whole record of a version: its functions and what was loaded.

    Raises as ``load`` does.
    """
    known = versions()
    if version not in known:
        raise LookupError(
            f"no KEMI list of Kamailio {version!r} is recorded; there is {', '.join(known)}"
        )
    text = resources.files(__name__).joinpath(f"{version}.json").read_text(encoding="utf-8")
    return parse(text)


def parse(text: str) -> KemiList:
    """Read a list from JSON text, as ``dump`` writes it.

    Raises ``ValueError`` for anything else, an unknown type and a function listed twice
    included.
    """
    data = json.loads(text)
    try:
        functions = [_function(entry) for entry in data["functions"]]
        record = KemiList(
            kamailio=str(data["kamailio"]),
            loaded=tuple(str(name) for name in data["loaded"]),
            skipped={str(name): str(why) for name, why in data["skipped"].items()},
            functions=MappingProxyType({function.name: function for function in functions}),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a KEMI list: {error!r}") from error
    if len(record.functions) != len(functions):
        raise ValueError("not a KEMI list: a function is listed twice")
    return record


def dump(record: KemiList) -> str:
    """Write a list as JSON text, sorted, with one line a function so that changes read well."""
    head = {
        "kamailio": record.kamailio,
        "loaded": sorted(record.loaded),
        "skipped": dict(sorted(record.skipped.items())),
    }
    entries = ",\n".join(
        "    " + json.dumps(_entry(function)) for function in _ordered(record.functions.values())
    )
    opening = json.dumps(head, indent=2).removesuffix("\n}")
    return f'{opening},\n  "functions": [\n{entries}\n  ]\n}}\n'


def compare(recorded: Mapping[str, Function], live: Mapping[str, Function]) -> Difference:
    """Say how ``live`` differs from ``recorded``; both map full names to functions."""
    live_modules = {function.module for function in live.values()}
    lost = [function for name, function in recorded.items() if name not in live]
    absent = {function.module for function in lost} - live_modules
    return Difference(
        absent_modules=tuple(sorted(absent)),
        missing=_ordered(function for function in lost if function.module not in absent),
        changed=tuple(
            Change(function, live[function.name])
            for function in _ordered(recorded.values())
            if function.name in live and live[function.name] != function
        ),
        added=_ordered(function for name, function in live.items() if name not in recorded),
    )


def _ordered(functions: Iterable[Function]) -> tuple[Function, ...]:
    return tuple(sorted(functions, key=lambda function: (function.module, function.short)))


def _entry(function: Function) -> dict[str, object]:
    return {
        "module": function.module,
        "name": function.short,
        "ret": function.ret,
        "params": list(function.params),
    }


def _function(entry: Any) -> Function:
    module, name, params = str(entry["module"]), str(entry["name"]), tuple(entry["params"])
    function = Function(f"{module}.{name}" if module else name, str(entry["ret"]), params)
    unknown = {*function.params} - PARAM_TYPES
    if unknown or function.ret not in RETURN_TYPES:
        raise ValueError(f"not a KEMI list: unknown type in {function}")
    return function
