"""``apiban``: the command line."""

from apiban.cli.main import main

__all__ = ["main"]
