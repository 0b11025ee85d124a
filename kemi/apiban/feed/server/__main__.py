"""``python3 -m apiban.feed.server``: serve a list file as an APIBAN-compatible API."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from apiban.address import is_loopback
from apiban.errors import ApibanError
from apiban.feed.server.app import make_app
from apiban.feed.server.catalog import Catalog, read_list
from apiban.feed.server.quota import Quota
from apiban.settings.secret import Secret
from apiban.settings.watch import FileWatch

__all__ = ["main"]

_LOOK_EVERY = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it; give the exit status."""
    options = _parser().parse_args(arguments)
    key = os.environ.get("APIBAN_FEED_SERVER_KEY", "")
    if not key:
        return _refuse("APIBAN_FEED_SERVER_KEY is not set: it holds the key that clients must send")
    if not options.allow_http and not is_loopback(options.host):
        return _refuse(
            f"--host {options.host}: keys would travel in clear text; "
            "use a loopback address, or --allow-http in a closed network"
        )
    watch = FileWatch(options.list)
    try:
        catalog = Catalog(read_list(options.list), now=time.time())
    except ApibanError as error:
        return _refuse(str(error))
    if options.requests < 1 or not 0 < options.window < math.inf:
        return _refuse("--requests must be at least 1, and --window a number of seconds above 0")
    if "/" in key:
        return _refuse("APIBAN_FEED_SERVER_KEY: a slash in it could not stand in a v1 path")
    quota = Quota(options.requests, options.window, time.monotonic)
    # v1 carries the key in the path: there is no access log.
    config = uvicorn.Config(
        make_app(catalog, Secret(key), quota),
        host=options.host,
        port=options.port,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=5,
    )
    return asyncio.run(_serve(uvicorn.Server(config), catalog, options.list, watch))


async def _serve(server: uvicorn.Server, catalog: Catalog, path: Path, watch: FileWatch) -> int:
    watcher = asyncio.create_task(_follow(catalog, path, watch))
    try:
        await server.serve()
    finally:
        watcher.cancel()
    return 0 if server.started else 1


async def _follow(catalog: Catalog, path: Path, watch: FileWatch) -> None:
    """Take changes of the list file; a bad one is said, and the last good list stays."""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        if watch.changed():
            try:
                catalog.replace(read_list(path))
            except ApibanError as error:
                sys.stderr.write(f"feed: {error}; the last good list stays\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m apiban.feed.server",
        description="Serve a list file as an APIBAN-compatible API (v1 and v2, under /api/). "
        "The environment variable APIBAN_FEED_SERVER_KEY holds the clients' key.",
    )
    parser.add_argument("--list", type=Path, required=True, help="the file: an address a line")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (%(default)s)")
    parser.add_argument("--requests", type=int, default=5, help="a key's requests (%(default)s)")
    parser.add_argument(
        "--window", type=float, default=120.0, help="in any so many seconds (%(default)s)"
    )
    parser.add_argument("--allow-http", action="store_true", help="listen beyond loopback")
    return parser


def _refuse(reason: str) -> int:
    sys.stderr.write(f"feed: {reason}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
