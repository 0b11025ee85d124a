"""What a listed source is kept from: which packets, at which hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Established", "Hook", "Port", "Rules"]

Hook = Literal["input", "forward"]
Established = Literal["drop", "keep"]


@dataclass(frozen=True, slots=True)
class Port:
    """Destination ports of one protocol, both ends inside: ``udp/5060-5061``."""

    protocol: Literal["udp", "tcp"]
    first: int
    last: int

    def __str__(self) -> str:
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.protocol}/{ports}"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that stand before the sets; two equal ones make the same chains.

    No ``ports`` are all packets of the source, no ``interfaces`` all of them (those that a packet
    came in by). With ``established`` at "keep" what belongs to a connection that conntrack knows
    goes on until it ends. ``drops`` is False in shadow mode: packets are counted, and go on.
    """

    hooks: tuple[Hook, ...]
    ports: tuple[Port, ...]
    interfaces: tuple[str, ...]
    established: Established
    drops: bool
