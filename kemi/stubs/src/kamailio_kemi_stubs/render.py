"""Write the typed stubs of a list as text.

Every class is a ``Protocol``, so that Kamailio's ``KSR`` module itself and a test's own double
both fit where a ``Ksr`` is asked for. Parameters are positional only: KEMI functions take no
keywords, and the list has no names for them.
"""

import keyword
from collections.abc import Iterable, Iterator, Mapping

from kamailio_kemi_stubs.lists import Function

__all__ = ["class_name", "ksr_module", "runtime_twin", "stub_module", "versions_module"]

# What Python sees for each KEMI type. A function of type "none" in truth returns 0; None keeps
# scripts from using that.
_PYTHON = {
    "bool": "bool",
    "int": "int",
    "long": "int",
    "none": "None",
    "str": "str",
    "xval": "int | str | None",
}
_WRITTEN = "# Written by generate.py from lists/{version}.json: do not edit."
_NOT_OURS = "# ruff: noqa: N802 - the names are Kamailio's"


def class_name(module: str) -> str:
    """Return the class of a KEMI module: ``http_client`` becomes ``HttpClient``."""
    return "".join(part[:1].upper() + part[1:] for part in module.split("_"))


def versions_module(version: str) -> str:
    """Return the Python module's name of a version: ``5.6`` becomes ``v5_6``."""
    return "v" + version.replace(".", "_")


def stub_module(version: str, functions: Mapping[str, Function]) -> str:
    """Return the text of a version's ``.pyi``: a class a KEMI module, and ``Ksr``.

    Raises ``ValueError`` when two KEMI modules would get the same class.
    """
    modules = _modules(functions.values())
    classes = {class_name(module): module for module in modules}
    if len(classes) != len(modules) or "Ksr" in classes:
        raise ValueError("two KEMI modules have the same class name")
    lines = [
        _WRITTEN.format(version=version),
        _NOT_OURS,
        "from typing import Protocol",
        "",
        "__all__ = [",
        *(f'    "{name}",' for name in sorted([*classes, "Ksr"])),
        "]",
    ]
    for module, members in sorted(modules.items()):
        lines += ["", f"class {class_name(module)}(Protocol):"]
        lines += [_signature(member, "    ", "self, ") for member in members]
    lines += ["", "class Ksr(Protocol):"]
    lines += [_signature(member, "    ", "self, ") for member in _core(functions.values())]
    for module in sorted(modules):
        lines += ["    @property", f"    def {module}(self) -> {class_name(module)}: ..."]
    return "\n".join(lines) + "\n"


def ksr_module(version: str, functions: Mapping[str, Function]) -> str:
    """Return the text of the stub of ``import KSR``: functions, and one attribute a module."""
    modules = sorted(_modules(functions.values()))
    package = f"kamailio_kemi_stubs.{versions_module(version)}"
    lines = [
        _WRITTEN.format(version=version),
        _NOT_OURS,
        f"from {package} import (",
        *(f"    {name}," for name in sorted(class_name(module) for module in modules)),
        ")",
        "",
        *(f"{module}: {class_name(module)}" for module in modules),
        "",
        *(_signature(function, "", "") for function in _core(functions.values())),
    ]
    return "\n".join(lines) + "\n"


def runtime_twin(version: str) -> str:
    """Return the text of the ``.py`` beside a version's ``.pyi``."""
    return f'''"""Types of Kamailio {version}'s ``KSR`` (see the ``.pyi``); empty at run time."""

{_WRITTEN.format(version=version)}

from kamailio_kemi_stubs._stand_in import stand_in


class Ksr:
    """Types only: annotate with it, nothing else."""


def __getattr__(name: str) -> type:
    return stand_in("{version}", __name__, name)
'''


def _modules(functions: Iterable[Function]) -> dict[str, list[Function]]:
    found: dict[str, list[Function]] = {}
    for function in _writable(functions):
        if function.module:
            found.setdefault(function.module, []).append(function)
    return found


def _core(functions: Iterable[Function]) -> Iterator[Function]:
    return (function for function in _writable(functions) if not function.module)


def _writable(functions: Iterable[Function]) -> list[Function]:
    """Drop what no script can write as ``KSR.module.name``: Python's own keywords."""
    return sorted(
        (
            function
            for function in functions
            if not any(keyword.iskeyword(part) for part in function.name.split("."))
        ),
        key=lambda function: function.short,
    )


def _signature(function: Function, indent: str, first: str) -> str:
    params = [f"p{place}: {_PYTHON[kind]}" for place, kind in enumerate(function.params, 1)]
    marks = [*params, "/"] if params else []
    arguments = (first + ", ".join(marks)).removesuffix(", ")
    return f"{indent}def {function.short}({arguments}) -> {_PYTHON[function.ret]}: ..."
