"""Kamailio's own RPC, asked from inside: no socket, no path and no rights of its own.

It needs the module ``jsonrpcs``, and nothing of it but that it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from apiban.errors import ApibanError

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["RpcError", "can_ask", "fields_of", "rpc"]

# What modules say that have nothing to list.
_NOTHING = frozenset(
    {"No Destination Sets", "No address table", "No subnet table", "No trusted table"}
)


class RpcError(ApibanError):
    """Kamailio does not know the method, or could not answer."""


def can_ask(ksr: Ksr) -> bool:
    """Tell whether this Kamailio can be asked."""
    return hasattr(ksr, "jsonrpcs")


def rpc(ksr: Ksr, method: str) -> object:
    """Give the result of a method; of an empty table it is an empty list.

    An object is a tuple of (name, value) pairs, since Kamailio's have several of one name; an array
    is a list. A method that Kamailio does not know is an ERROR line of Kamailio's each time.

    Raises:
        RpcError

    """
    try:
        if ksr.jsonrpcs.exec(json.dumps({"jsonrpc": "2.0", "method": method, "id": 1})) < 0:
            raise RpcError(f"{method}: not answered")
        # A tag in a table may hold any byte: one that is no UTF-8 is an error here.
        body = str(ksr.pv.get("$jsonrpl(body)"))
        reply: Any = dict(json.loads(body, object_pairs_hook=tuple, strict=False))
        if "result" in reply:
            result: object = reply["result"]
            return result
        message = str(dict(reply["error"])["message"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RpcError(f"{method}: not understood ({type(error).__name__})") from None
    if message in _NOTHING:
        return []
    raise RpcError(f"{method}: {message}")


def fields_of(result: object) -> Iterator[tuple[str, object]]:
    """Give each field of a result in its order, those of objects inside after the outer's name."""
    if isinstance(result, list):
        for one in result:
            yield from fields_of(one)
    elif isinstance(result, tuple):
        for name, value in result:
            yield name, value
            yield from fields_of(value)
