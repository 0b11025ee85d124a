"""A process that builds a list: ``applying BACKEND START NUMBER``; an error is its only line."""

from __future__ import annotations

import sys
import time

from apiban.errors import FirewallError
from apiban.firewall.elements import Change

from tests.contract.firewall.kits import KITS
from tests.contract.firewall.parts import many, rules


def main(name: str, start: str, number: str) -> None:
    """Say when all is prepared, wait for a word, and build the list."""
    backend = next(kit for kit in KITS if kit.name == name).make()
    change = Change(add=many(int(number), start), rebuild=True)
    sys.stderr.write("ready\n")
    sys.stderr.flush()
    sys.stdin.readline()
    try:
        backend.apply(change, rules(), now=time.time())
    except FirewallError as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
