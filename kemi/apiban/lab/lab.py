"""The lab as a whole: made, found again, and taken away with all that was made for it."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import ifaddr

from apiban.lab.base import RELEASES, base_image, own_image
from apiban.lab.command import LabError, run
from apiban.lab.compose import find_compose
from apiban.lab.daemon import Daemon
from apiban.lab.folder import is_there, make_folder, remove_folder, require_space
from apiban.lab.node import Node
from apiban.lab.services import LOOK_EVERY, Services

__all__ = ["ROOT", "Lab", "Made", "default_folder", "project_name"]

ROOT: Final = Path(__file__).resolve().parents[3]
NET4: Final = "172.30.77"
NET6: Final = "fd4c:4150:77"

_CA_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_BUILD_TIMEOUT: Final = 1200.0
_UP_TIMEOUT: Final = 180.0
# What the images are built from.
_CONTEXT: Final = (
    "LICENSE",
    "requirements.lock",
    "bin/apiban",
    "kamailio",
    "kemi",
    "sipp-scenarios",
)
_IMAGES: Final = ("feed", "kamailio", "firewall", "sipp", "prometheus")


@dataclass(frozen=True, slots=True)
class Made:
    """What was made for the lab, kept in its folder so that ``down`` finds it."""

    release: str
    base: str
    net4: str
    net6: str
    ports: bool


def project_name(root: Path) -> str:
    """Give compose's name for the lab of this copy of the repository."""
    return f"apiban-lab-{zlib.crc32(os.fsencode(root)):08x}"


def default_folder(root: Path, environ: Mapping[str, str]) -> Path:
    """Give where the lab keeps what it makes: a folder of its own below ``LAB_STATE``."""
    above = Path(environ.get("LAB_STATE") or "/var/tmp")  # noqa: S108 - what is there is not trusted
    return above.absolute() / project_name(root)


class Lab:
    """One lab; ``folder`` exists while there is one.

    Raises:
        LabError: the folder is there, and is not ours.

    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        is_there(folder)
        self._folder = folder
        self._say = say
        self._project = project_name(ROOT)
        self._daemon = Daemon(folder)

    @property
    def is_up(self) -> bool:
        """Whether there is one, finished, with a daemon that answers."""
        return (self._folder / "up").exists() and self._daemon.answers()

    @property
    def services(self) -> Services:
        """Give its containers."""
        return Services(self._daemon.docker(), self._project)

    def up(self, release: str, *, ports: bool, environ: Mapping[str, str]) -> None:
        """Make it; what is there already is brought up to date.

        Raises:
            LabError: something cannot be made; ``down`` takes the rest away.

        """
        net4, net6 = environ.get("LAB_NET4") or NET4, environ.get("LAB_NET6") or NET6
        if not self.is_up:
            self.down()  # what an earlier one may have left half made
            _require_ipv6()
            make_folder(self._folder)
            require_space(self._folder)
        if self._daemon.own:
            self._compose("down", "-v", "--remove-orphans", "-t", "2", timeout=_UP_TIMEOUT)
            self._daemon.stop()
        answers = self._daemon.answers()
        # The network of the lab's own daemon is not this host's, unless ports are opened.
        if (not (self._folder / "up").exists()) if answers else ports:
            _refuse_taken(net4, net6)
        if answers:
            self._say(f"using the Docker daemon at {_docker_host()}")
        else:
            self._say("no Docker daemon answers: starting one of the lab's own")
            self._daemon.start(isolated=False)
        base = environ.get("BASE") or base_image(
            self._daemon.docker(), release, self._project, self._folder, self._say
        )
        made = Made(release, base, net4, net6, ports)
        (self._folder / "made.json").write_text(json.dumps(asdict(made)), encoding="utf-8")
        self._copy_context()
        compose = find_compose()
        self._say(f"building the images on {base}, with {' '.join(compose.words)}")
        began = time.monotonic()
        self._compose(*compose.build, timeout=_BUILD_TIMEOUT)
        self._say(f"built in {time.monotonic() - began:.0f} s; starting the services")
        began = time.monotonic()
        if self._daemon.own and not ports:
            self._daemon.stop()
            self._daemon.start(isolated=True)
        self._compose("up", "-d", "--no-build", "--remove-orphans", timeout=_UP_TIMEOUT)
        self._wait_until_well()
        (self._folder / "up").touch()
        self._say(f"all are well after {time.monotonic() - began:.0f} s")

    def down(self) -> None:
        """Take away containers, networks, volumes, images, the daemon if it is the lab's, files."""
        if not is_there(self._folder):
            return
        own = self._daemon.own
        try:
            if (self._folder / "made.json").exists() and self._daemon.answers():
                if not own or self._made().ports:  # else its network ends with the daemon
                    self._compose("down", "-v", "--remove-orphans", "-t", "2", timeout=_UP_TIMEOUT)
                if not own:
                    self._remove_images()
        finally:
            self._daemon.end()
        remove_folder(self._folder)

    def logs(self) -> str:
        """Give what the services said."""
        return self._compose("logs", "--no-color", "-t", timeout=60)

    def sizes(self) -> dict[str, str]:
        """Give the images' sizes, as Docker says them."""
        text = run(
            [*self._daemon.docker(), "images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}"]
        )
        named = dict(line.rsplit(" ", 1) for line in text.splitlines())
        return {name: named.get(f"apiban-{name}:{self._project}", "") for name in _IMAGES}

    def _made(self) -> Made:
        try:
            return Made(**json.loads((self._folder / "made.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise LabError(f"{self._folder}: made.json cannot be read ({error})") from None

    def _compose(self, *what: str, timeout: float) -> str:
        made, compose = self._made(), find_compose()
        environ = {
            **{name: text for name, text in os.environ.items() if not name.startswith("COMPOSE_")},
            **compose.environ,
            "BASE": made.base,
            "CA_FILE": "ca.crt" if _CA_BUNDLE.exists() else "LICENSE",
            "DOCKER_CONFIG": str(_linked_config(self._folder / "docker")),
            "LAB_CONTEXT": str(self._folder / "context"),
            "LAB_NET4": made.net4,
            "LAB_NET6": made.net6,
            "LAB_TAG": self._project,
        }
        if self._daemon.own:
            environ["DOCKER_HOST"] = self._daemon.host
        files = ["docker-compose.yml", *(["docker-compose.ports.yml"] if made.ports else [])]
        words = compose.command(self._project, [str(ROOT / file) for file in files], *what)
        return run(words, environ=environ, timeout=timeout)

    def _copy_context(self) -> None:
        """Copy what the images are built from, with the host's CA bundle beside it."""
        context = self._folder / "context"
        shutil.rmtree(context, ignore_errors=True)
        for name in _CONTEXT:
            source, target = ROOT / name, context / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        shutil.copy(ROOT / ".dockerignore", context)
        if _CA_BUNDLE.exists():
            shutil.copy(_CA_BUNDLE, context / "ca.crt")

    def _wait_until_well(self) -> None:
        """Wait until every service is well, and the node has the whole list."""
        services, give_up = self.services, time.monotonic() + _UP_TIMEOUT
        while True:
            bad = [name for name in services.names() if not services.state(name).well]
            events = [event.text for event in Node(services).events(0)] if not bad else []
            if any(text.startswith("event=pass-end") for text in events):
                return
            if time.monotonic() > give_up:
                raise LabError(f"not well: {', '.join(bad) or 'the node has no list'}")
            time.sleep(LOOK_EVERY)

    def _remove_images(self) -> None:
        docker = self._daemon.docker()
        names = [f"apiban-{name}:{self._project}" for name in _IMAGES]
        names += [own_image(release, self._project) for release in RELEASES]
        for name in names:
            if run([*docker, "images", "-q", name]).strip():
                run([*docker, "image", "rm", name])


def _docker_host() -> str:
    return run(["docker", "context", "inspect", "-f", "{{.Endpoints.docker.Host}}"]).strip()


def _linked_config(folder: Path) -> Path:
    """Make a folder for what builds write into Docker's; what the user has there is linked."""
    there = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "contexts", "cli-plugins", "ca.pem", "cert.pem", "key.pem"):
        if (there / name).exists() and not (folder / name).is_symlink():
            (folder / name).symlink_to((there / name).absolute())
    return folder


def _require_ipv6() -> None:
    if not Path("/proc/net/if_inet6").exists():
        raise LabError("this kernel has no IPv6, which the lab's network needs")


def _refuse_taken(net4: str, net6: str) -> None:
    """Refuse addresses that this host has already.

    Raises:
        LabError: with the interface, or with what is no network.

    """
    try:
        wanted = [ipaddress.ip_network(f"{net4}.0/24"), ipaddress.ip_network(f"{net6}::/64")]
    except ValueError as error:
        raise LabError(f"LAB_NET4, LAB_NET6: {error}") from None
    for adapter in ifaddr.get_adapters():
        for one in adapter.ips:
            text = one.ip if isinstance(one.ip, str) else one.ip[0]
            address = ipaddress.ip_address(text.partition("%")[0])
            for network in wanted:
                if address in network:
                    raise LabError(
                        f"{network} is in use on {adapter.nice_name}: set LAB_NET4 and LAB_NET6"
                    )
