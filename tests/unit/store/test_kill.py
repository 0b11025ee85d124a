import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from apiban.address import Network
from apiban.store import FEED_SOURCE, Store

PAGE = 40

_RECORD_FOR_EVER = """
import sys
from pathlib import Path
from apiban.address import Network
from apiban.store import FEED_SOURCE, FeedState, Store

size = int(sys.argv[2])
with Store(Path(sys.argv[1])) as store:
    page = int(store.feed(FEED_SOURCE, "x").cursor or 0)
    while True:
        page += 1
        numbers = range(page * size, (page + 1) * size)
        store.record_page(
            FEED_SOURCE,
            [Network(4, number, number) for number in numbers],
            listed=page,
            expires=1e9,
            state=FeedState("x", cursor=str(page)),
        )
        print(page, flush=True)
"""


def _run_and_kill(path: Path, after: float) -> int:
    """Record pages in a process, kill it in the middle of one; give the last page it spoke of."""
    command = [sys.executable, "-c", _RECORD_FOR_EVER, str(path), str(PAGE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            # Not select(), which takes no more than 1,024 open files of this process.
            poll = select.poll()
            poll.register(child.stdout, select.POLLIN)
            assert poll.poll(30_000), "no page was recorded"
            time.sleep(after)  # another moment within the loop each time: any of them is right
        finally:
            child.kill()
        said = child.stdout.read().split()
    return int(said[-1])


@pytest.mark.parametrize("first", [0.0, 0.003])
def test_killed_at_any_moment_list_and_cursor_agree(tmp_path: Path, first: float) -> None:
    """Every page whose cursor is stored is whole, and nothing of a later one is there."""
    path = tmp_path / "store.db"
    for turn in range(3):
        said = _run_and_kill(path, first + turn * 0.0071)
        with Store(path) as store:
            cursor = int(store.feed(FEED_SOURCE, "x").cursor or 0)
            assert cursor >= said
            found = [
                Network(4, start, end) for start, end, *_ in store.bans(4, grace_source="", grace=0)
            ]
            assert found == [Network(4, n, n) for n in range(PAGE, (cursor + 1) * PAGE)]
            newest = store.journal(1)[0][3]
            assert newest == str(found[-1])
