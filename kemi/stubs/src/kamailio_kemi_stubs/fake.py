"""A ``KSR`` for tests, which knows what a real Kamailio exports and refuses the rest.

The real one fails quietly: on 5.6 a wrong argument leaves an exception behind that breaks a later
call, on 6.0 the call is only logged and returns False. The fake raises at once.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kamailio_kemi_stubs import lists
from kamailio_kemi_stubs.lists import Function

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr as _Ksr
else:
    _Ksr = object

__all__ = ["Call", "FakeKsr", "Log"]

_LEVELS = ("dbg", "info", "notice", "warn", "err", "crit")
_DEFAULTS: dict[str, int | None] = {"bool": True, "int": 1, "none": None, "xval": None}
_LIMIT = {"int": 2**31, "long": 2**63}


@dataclass(frozen=True)
class Call:
    """One recorded call: the name after ``KSR.`` (``"sl.send_reply"``), and its arguments."""

    name: str
    args: tuple[object, ...]


class Log(list[tuple[str, str]]):
    """The (level, text) pairs that were logged.

    It can be called because ``KSR.log(level, text)`` is a function of the real object.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self._function = function

    def __call__(self, p1: str, p2: str, /) -> None:
        """Log a text (``p2``) at a level (``p1``), as ``KSR.log`` does."""
        self._function(p1, p2)


class FakeKsr(_Ksr):
    """A ``KSR`` that checks and records every call; to type checkers it is a ``Ksr``.

    ``version`` is the Kamailio whose recorded list it follows (``LookupError`` when there is
    none). ``variables`` is what ``pv.get`` and its kin serve, by name (``"$rcv(srcip)"``); a
    name that is not there is null. Give bytes for what came off the wire.

    An unknown module or function raises ``AttributeError``. A wrong number or type of arguments
    raises ``TypeError`` (here True is no int), and a value that KEMI cannot carry
    ``ValueError``: a NUL in a string, an int of more than 32 bits.

    What a function returns can be set with ``on``. Otherwise ``int`` gives 1, ``bool`` True, and
    the rest None.
    """

    log: Log

    def __init__(
        self,
        version: str = "5.6",
        *,
        variables: Mapping[str, int | str | bytes | None] | None = None,
    ) -> None:
        self._version = version
        self._functions = lists.load(version)
        self._modules = {function.module for function in self._functions.values()} - {""}
        self.variables: dict[str, int | str | bytes | None] = dict(variables or {})
        self.calls: list[Call] = []
        self.dropped = 0
        self.log = Log(partial(self._call, "log"))
        self._behaviours: dict[str, Callable[..., object]] = {
            "pv.get": self._get,
            "pv.gete": lambda name: _or(self._get(name), ""),
            "pv.geti": self._number,
            "pv.getl": self._number,
            "pv.getvn": lambda name, other: _or(self._get(name), other),
            "pv.getvs": lambda name, other: _or(self._get(name), other),
            "pv.getw": lambda name: _or(self._get(name), "<null>"),
            "pv.is_null": lambda name: self.variables.get(name) is None,
            "pv.seti": self._set,
            "pv.setl": self._set,
            "pv.sets": self._set,
            "pv.unset": lambda name: self._set(name, None),
        }

    def on(self, name: str, behaviour: Callable[..., object]) -> None:
        """Let ``behaviour`` answer a function; it is given the arguments, checked already.

        It may raise. What it returns is checked against the list too (``TypeError``), so that a
        test cannot rest on an answer that Kamailio never gives. Raises ``AttributeError`` when
        there is no such function.
        """
        self._find(name)
        self._behaviours[name] = behaviour

    def functions(self) -> list[str]:
        """Return the names of all functions of this version, sorted."""
        return sorted(self._functions)

    def calls_of(self, name: str) -> list[tuple[object, ...]]:
        """Return the arguments of each call of one function, in order.

        Raises ``AttributeError`` when there is no such function: a slip in a test's name must
        not look like "never called".
        """
        self._find(name)
        return [call.args for call in self.calls if call.name == name]

    if not TYPE_CHECKING:  # checkers take the modules and functions from the stub

        def __getattr__(self, name: str) -> "_FakeModule | Callable[..., object]":
            # Python's own look-ups (copy, pickle) come before __init__ has run.
            if name.startswith("_"):
                raise AttributeError(name)
            if name in self._modules:
                return _FakeModule(self, name)
            self._find(name)
            return partial(self._call, name)

    def _find(self, name: str) -> Function:
        function = self._functions.get(name)
        if function is None:
            near = difflib.get_close_matches(name, [*self._functions, *self._modules], n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise AttributeError(f"Kamailio {self._version} has no KSR.{name}{hint}")
        return function

    def _call(self, name: str, *args: object) -> object:
        function = self._find(name)
        _check_arguments(function, args)
        self.calls.append(Call(name, args))
        if name in _LEVELS:
            self.log.append((name, str(args[0])))
        elif name == "log":
            self.log.append((str(args[0]), str(args[1])))
        elif name == "set_drop":
            self.dropped += 1
        if name not in self._behaviours:
            return _DEFAULTS[function.ret]
        result = self._behaviours[name](*args)
        _check_result(function, result)
        return result

    def _get(self, name: str) -> int | str | None:
        value = self.variables.get(name)
        return value.decode() if isinstance(value, bytes) else value

    def _number(self, name: str) -> int:
        value = self.variables.get(name)
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            return int(value) if re.fullmatch(rb"[+-]?[0-9]+", value) else 0
        return value or 0

    def _set(self, name: str, value: int | str | None) -> bool:
        self.variables[name] = value
        return True


class _FakeModule:
    """One KEMI module of a fake: its attributes are the module's functions."""

    def __init__(self, fake: FakeKsr, name: str) -> None:
        self._fake = fake
        self._name = name

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name.startswith("_"):
            raise AttributeError(name)
        full = f"{self._name}.{name}"
        self._fake._find(full)  # noqa: SLF001 - two halves of one thing
        return partial(self._fake._call, full)  # noqa: SLF001


def _or(value: int | str | None, other: int | str) -> int | str:
    return other if value is None else value


def _check_arguments(function: Function, args: tuple[object, ...]) -> None:
    if len(args) != len(function.params):
        raise TypeError(
            f"KSR.{function} takes {len(function.params)} arguments, not {len(args)}: {args!r}"
        )
    for place, (kind, value) in enumerate(zip(function.params, args, strict=True), 1):
        expected = str if kind == "str" else int
        if not isinstance(value, expected) or isinstance(value, bool):
            raise TypeError(f"KSR.{function}: argument {place} must be {kind}, not {value!r}")
        if isinstance(value, str) and ("\0" in value or not _is_utf8(value)):
            raise ValueError(f"KSR.{function}: argument {place} cannot be passed: {value!r}")
        if isinstance(value, int) and not -_LIMIT[kind] <= value < _LIMIT[kind]:
            raise ValueError(f"KSR.{function}: argument {place} is too large: {value!r}")


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_result(function: Function, result: object) -> None:
    allowed: tuple[type, ...] = {
        "bool": (bool,),
        "int": (int,),
        "none": (type(None),),
        "xval": (int, str, type(None)),
    }[function.ret]
    if type(result) not in allowed:
        raise TypeError(f"KSR.{function}: the behaviour set for it returned {result!r}")
