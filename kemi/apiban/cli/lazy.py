"""A group whose commands are imported when they are used: a check in a script starts sooner.

A command whose packages are not installed is listed all the same, and says what it needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from apiban.errors import ApibanError

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """``places`` are the commands: ``MODULE:ATTRIBUTE`` in this package by their names.

    ``extra`` is the package's extra that installs what they need.
    """

    def __init__(
        self, *arguments: Any, places: Mapping[str, str], extra: str = "cli", **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self._places = places
        self._extra = extra

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's name
        """Give the commands' names."""
        return sorted(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Give a command; None when there is none of this name."""
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, name = place.split(":")
        try:
            command: click.Command = getattr(importlib.import_module(f"apiban.cli.{module}"), name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "apiban":
                raise
            return self._missing(cmd_name, error.name)
        return command

    def _missing(self, name: str, package: str) -> click.Command:
        def refuse(**_: object) -> None:
            raise ApibanError(f"{name} needs {package}: install apiban[{self._extra}]")

        return click.Command(
            name,
            callback=refuse,
            short_help=f"Not installed: it needs apiban[{self._extra}].",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
