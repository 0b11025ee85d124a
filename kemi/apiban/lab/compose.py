"""The command lines of compose: version 1 (``docker-compose``), and 2 and later."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from apiban.lab.command import LabError, run

__all__ = ["Compose", "choose_compose", "find_compose"]


@dataclass(frozen=True, slots=True)
class Compose:
    """One of them: how it is called, and its major version (5 came after 2)."""

    words: tuple[str, ...]
    version: int

    def command(self, project: str, files: Sequence[str], *what: str) -> list[str]:
        """Give the command line that does ``what`` to a project."""
        named = [word for file in files for word in ("-f", file)]
        return [*self.words, "-p", project, *named, *what]

    @property
    def build(self) -> tuple[str, ...]:
        """Give what builds all images at once; later versions always do."""
        return ("build", "--parallel") if self.version == 1 else ("build",)

    @property
    def environ(self) -> dict[str, str]:
        """Give the variables that let version 1 build with BuildKit, stages at once."""
        if self.version == 1:
            return {"COMPOSE_DOCKER_CLI_BUILD": "1", "DOCKER_BUILDKIT": "1"}
        return {}


def choose_compose(plugin: str | None, program: str | None) -> Compose:
    """Choose by what ``docker compose version`` and ``docker-compose version`` say, if anything.

    Raises:
        LabError: there is neither.

    """
    for words, said in ((("docker", "compose"), plugin), (("docker-compose",), program)):
        found = re.search(r"version:? v?(\d+)\.", said or "")
        if found:
            return Compose(words, int(found[1]))
    raise LabError("there is neither docker compose nor docker-compose (Debian: docker-compose)")


def find_compose() -> Compose:
    """Ask both."""
    return choose_compose(_said("docker", "compose"), _said("docker-compose"))


def _said(*words: str) -> str | None:
    try:
        return run([*words, "version"])
    except LabError:
        return None
