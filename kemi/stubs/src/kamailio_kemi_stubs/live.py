"""Ask a real Kamailio, started for the purpose, which functions it exports to KEMI.

``read`` is all there is to call. The server has a folder, a control socket and a loopback port
of its own, serves nobody, and is gone when ``read`` returns.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kamailio_kemi_stubs.lists import PARAM_TYPES, RETURN_TYPES, Function, KemiList

__all__ = ["MODULES", "LiveError", "parse_api_list", "read"]

# Kamailio modules that a KEMI script at the edge may use, in loading order: tls wants to be the
# first, sl finds tm when that is there, and the rest follows what it is built on. Modules that
# need a database or a far server to start are not among them. The sum stays below 1,024
# functions, more than which app_python3 cannot export.
MODULES = (
    "tls",
    "kex",
    "corex",
    "tm",
    "tmx",
    "sl",
    "rr",
    "pv",
    "maxfwd",
    "usrloc",
    "registrar",
    "textops",
    "textopsx",
    "siputils",
    "xlog",
    "sanity",
    "ctl",
    "cfg_rpc",
    "counters",
    "nathelper",
    "path",
    "uac",
    "dispatcher",
    "permissions",
    "htable",
    "ipops",
    "tcpops",
    "dmq",
    "jsonrpcs",
    "xhttp",
    "xhttp_prom",
    "statistics",
    "dialog",
    "auth",
    "websocket",
    "rtimer",
    "sdpops",
    "pike",
    "acc",
    "avpops",
    "cfgutils",
    "mqueue",
    "tmrec",
    "uuid",
    "regex",
    "http_client",
    "ratelimit",
    "kemix",
    "crypto",
    "debugger",
    "keepalive",
    "stun",
    "pv_headers",
    "diversion",
    "uac_redirect",
    "evapi",
    "siptrace",
    "rtpengine",
    "app_python3",
)
_NEEDED = {"app_python3": "the KEMI interpreter", "ctl": "what kamcmd talks to"}

# What api_list cannot say: it has no name for the type long, and gives "<null string>" for the
# parameters of a function that has one. Source: src/core/kemi.c of Kamailio 6.0.
_UNNAMED = {"pv.setl": ("str", "long")}

# KSR.x.modf is there too, but is no KEMI export: it is not in api_list, its arguments have no
# types, and on 5.6.3 calling it ends the server with SIGSEGV (seen). So no list has it.
_NOT_KEMI = {"x.modf"}

_FUNCTION = re.compile(r"func: \{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"^\s*(ret|module|name|params): ?(.*?)\s*$", re.MULTILINE)
_SIZE = re.compile(r"^\s*msize: (\d+)\s*$", re.MULTILINE)

_SCRIPT = """\
import json

import KSR


def names(thing):
    return [name for name in dir(thing) if not name.startswith("_")]


found = []
for name in names(KSR):
    inside = names(getattr(KSR, name))
    found += [name + "." + function for function in inside] if inside else [name]
with open({path!r}, "w", encoding="utf-8") as file:
    json.dump(found, file)


class Script:
    def child_init(self, rank):
        return 0

    def ksr_request_route(self, msg):
        return 1

    def ksr_reply_route(self, msg):
        return 1

    def ksr_onsend_route(self, msg):
        return 1

    def ksr_xhttp_event(self, msg, name):
        return 1


def mod_init():
    return Script()
"""


class LiveError(Exception):
    """Kamailio could not be started or asked, or answered what cannot be understood."""


@dataclass(frozen=True)
class _Installed:
    kamailio: str
    kamcmd: str
    version: str
    folders: tuple[Path, ...]


def read(
    *,
    kamailio: str = "kamailio",
    kamcmd: str = "kamcmd",
    modules_dirs: Sequence[Path] = (),
    seconds: float = 60.0,
) -> KemiList:
    """Start the installed Kamailio, ask it for its exported functions, and end it.

    ``kamailio`` and ``kamcmd`` are names in PATH or paths. ``modules_dirs`` are searched for
    modules besides Kamailio's own folder. It takes ``seconds`` at most, and some more to end
    the server. Raises ``LiveError``.
    """
    installed = _installed(kamailio, kamcmd, modules_dirs)
    with tempfile.TemporaryDirectory(prefix="kemi-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        deadline = time.monotonic() + seconds
        loaded, skipped = _choose(installed, folder)
        _write_configuration(installed, folder, loaded)
        with _running(installed, folder) as process:
            answer = _ask(installed, folder, process, deadline)
        functions = parse_api_list(answer)
        _check_reachable(functions, folder)
    return KemiList(installed.version, tuple(sorted(loaded)), skipped, functions)


def parse_api_list(text: str) -> dict[str, Function]:
    """Read what ``kamcmd app_python.api_list`` prints, by full name.

    Of a function that is listed twice the later one counts: it is the one that Python gets
    (``cfgutils.lock`` of 6.0, with one and with two parameters). Raises ``LiveError`` for
    anything that is not such a list.
    """
    blocks = _FUNCTION.findall(text)
    size = _SIZE.search(text)
    if not size or int(size[1]) != len(blocks) or not blocks:
        raise LiveError(f"app_python.api_list gave no whole list: {text[:200]!r}")
    functions = (_read_function(block) for block in blocks)
    return {function.name: function for function in functions}


def _read_function(block: str) -> Function:
    fields = dict(_FIELD.findall(block))
    try:
        module, short, params = fields["module"], fields["name"], fields["params"]
        name = f"{module}.{short}" if module else short
        kinds = () if params == "none" else tuple(params.split(", "))
        function = Function(name, fields["ret"], _UNNAMED.get(name, kinds))
    except KeyError as error:
        raise LiveError(f"app_python.api_list: no {error} in {block!r}") from error
    if {*function.params} - PARAM_TYPES or function.ret not in RETURN_TYPES:
        raise LiveError(f"app_python.api_list: unknown type in {function}")
    return function


def _installed(kamailio: str, kamcmd: str, modules_dirs: Sequence[Path]) -> _Installed:
    paths = []
    for program in (kamailio, kamcmd):
        # Debian has them in /usr/sbin, which is not in every user's PATH.
        path = shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin")
        if path is None:
            raise LiveError(f"{program}: not found; is Kamailio installed?")
        paths.append(path)
    about = subprocess.run(
        [paths[0], "-I"], capture_output=True, text=True, check=False, timeout=20
    ).stdout
    version = re.search(r"Version: kamailio (\d+\.\d+\.\d+)", about)
    folder = re.search(r"Default paths to modules: (\S+)", about)
    if not version or not folder:
        raise LiveError(f"{paths[0]} -I: neither version nor modules in {about[:200]!r}")
    folders = [*modules_dirs, *(Path(part) for part in folder[1].split(":"))]
    return _Installed(paths[0], paths[1], version[1], tuple(folders))


def _choose(installed: _Installed, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the modules to load, in order, and why each of the others is not."""
    skipped = {
        name: "not installed"
        for name in MODULES
        if not any((place / f"{name}.so").exists() for place in installed.folders)
    }
    if "tls" not in skipped and not _make_certificate(folder):
        skipped["tls"] = "no openssl program to make a certificate with"
    for name, what in _NEEDED.items():
        if name in skipped:
            raise LiveError(f"{name}.so, {what}, is not in {_joined(installed.folders)}")
    return [name for name in MODULES if name not in skipped], skipped


def _make_certificate(folder: Path) -> bool:
    """Make a throw-away certificate: tls exports nothing unless it is enabled, and needs one."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return False
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-out", str(folder / "cert.pem")]
    command += ["-keyout", str(folder / "key.pem")]
    made = subprocess.run(command, capture_output=True, check=False, timeout=20)
    return made.returncode == 0


def _write_configuration(installed: _Installed, folder: Path, loaded: Sequence[str]) -> None:
    port = _free_port()
    parameters: Mapping[str, Mapping[str, str | int]] = {
        "app_python3": {"load": f"{folder}/script.py"},
        "ctl": {"binrpc": f"unix:{folder}/ctl"},
        "dispatcher": {"list_file": f"{folder}/dispatcher.list"},
        "dmq": {"server_address": f"sip:127.0.0.1:{port}"},
        "jsonrpcs": {"transport": 1},  # HTTP alone: the others open sockets in /run
        "siptrace": {"trace_to_database": 0},
        "tls": {"certificate": f"{folder}/cert.pem", "private_key": f"{folder}/key.pem"},
        "xhttp": {"event_callback": "ksr_xhttp_event"},
    }
    lines = ["debug=1", "log_stderror=yes", "children=1", "tcp_children=1"]
    lines += [f"listen=udp:127.0.0.1:{port}", f'mpath="{_joined(installed.folders)}"']
    lines += ["enable_tls=yes"] if "tls" in loaded else []
    lines += [f'loadmodule "{name}.so"' for name in loaded]
    lines += [
        f'modparam("{name}", "{parameter}", {json.dumps(value)})'
        for name in loaded
        for parameter, value in parameters.get(name, {}).items()
    ]
    lines += ['cfgengine "python"']
    (folder / "kamailio.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "dispatcher.list").write_text("1 sip:127.0.0.1:9\n", encoding="utf-8")
    script = _SCRIPT.format(path=f"{folder}/names.json")
    (folder / "script.py").write_text(script, encoding="utf-8")


def _free_port() -> int:
    """Return a loopback port that is free for UDP and TCP now; nothing holds it afterwards."""
    for _attempt in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LiveError("no free port on 127.0.0.1")


def _environment() -> dict[str, str]:
    # The embedded interpreter takes its home from the first python3 in PATH: it must be the
    # system's, and nothing of a virtual environment that this program may run in.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", "")}


@contextmanager
def _running(installed: _Installed, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [installed.kamailio, "-DD", "-E", "-f", str(folder / "kamailio.cfg")]
    command += ["-Y", str(folder), "-w", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # a group of its own, for the worst case below
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    for _attempt in range(20):
        try:
            process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            # Kamailio ends its own processes, but one that was just being forked takes no notice
            # (seen), and is waited for without an end: it takes the second signal.
            os.killpg(process.pid, signal.SIGTERM)
        else:
            return
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)


def _ask(
    installed: _Installed, folder: Path, process: subprocess.Popen[bytes], deadline: float
) -> str:
    """Return the answer to app_python.api_list, as soon as Kamailio gives one."""
    command = [installed.kamcmd, "-s", f"unix:{folder}/ctl", "app_python.api_list"]
    said = "no control socket"
    while process.poll() is None and (left := deadline - time.monotonic()) > 0:
        if (folder / "ctl").exists():
            try:
                asked = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=left
                )
            except subprocess.TimeoutExpired:
                break
            if "msize" in asked.stdout:
                return asked.stdout
            said = (asked.stdout + asked.stderr).strip()
        time.sleep(0.1)
    ended = process.poll()
    what = f"ended with status {ended}" if ended is not None else f"did not answer in time ({said})"
    log = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line for line in log if re.search(r"ERROR|CRITICAL|ALERT|Traceback|Error:", line)]
    raise LiveError("\n".join([f"Kamailio {installed.version} {what}; its log:", *told[-15:]]))


def _check_reachable(functions: Mapping[str, Function], folder: Path) -> None:
    """Check the list against the KSR that the script saw: they come from two tables."""
    seen = set(json.loads((folder / "names.json").read_text(encoding="utf-8"))) - _NOT_KEMI
    odd = seen ^ set(functions)
    if odd:
        raise LiveError(f"app_python.api_list and KSR do not agree on {', '.join(sorted(odd))}")


def _joined(folders: Sequence[Path]) -> str:
    return ":".join(str(folder) for folder in folders)
