"""The difference between what the kernel holds and what it should hold."""

from __future__ import annotations

from apiban.firewall.elements import FOREVER, Change, Elements, Held, Wanted
from apiban.firewall.plan import LINGER, MARGIN, SLACK, after, due, plan
from apiban.firewall.plan import alive as alive_in
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0
DAY = 86_400

BLOCKS = st.integers(0, 12).map(lambda number: (4, number, number))
ENDS = st.one_of(
    st.integers(int(NOW) - 300, int(NOW) + 1000),
    st.integers(int(NOW), int(NOW) + 30 * DAY),
    st.just(FOREVER),
)
ELEMENTS = st.dictionaries(BLOCKS, ENDS)
ALLOWED = st.frozensets(BLOCKS)
WANTED = st.builds(Wanted, ELEMENTS, ALLOWED)
HELD = st.builds(Held, ELEMENTS, ALLOWED, st.just(True))  # noqa: FBT003 - builds() gives it so


def alive(elements: Elements, now: float) -> set[tuple[int, int, int]]:
    """Give the blocks whose bans have not ended."""
    return {block for block, end in elements.items() if now < end}


@given(WANTED, HELD)
def test_a_plan_leads_to_what_is_wanted(wanted: Wanted, held: Held) -> None:
    """Then the kernel bans whom it should, allows whom it should, and no ban lasts too long."""
    then = after(held, plan(wanted, held, now=NOW))
    missing = alive(wanted.banned, NOW) - alive(then.banned, NOW)
    assert missing == set()
    for block in alive(then.banned, NOW):
        assert then.banned[block] <= max(wanted.banned[block], NOW) + SLACK
    assert then.allowed == wanted.allowed


@given(WANTED, HELD)
def test_a_second_plan_has_nothing_to_do(wanted: Wanted, held: Held) -> None:
    """No more changes than needed: what was done is not done again."""
    then = after(held, plan(wanted, held, now=NOW))
    assert not plan(wanted, then, now=NOW)


@given(WANTED, HELD)
def test_only_what_differs_is_touched(wanted: Wanted, held: Held) -> None:
    """A block whose end is the wanted one is left alone; what is held is never just added."""
    change = plan(wanted, held, now=NOW)
    same = {block for block, end in wanted.banned.items() if held.banned.get(block) == end}
    assert not same & (change.add.keys() | change.extend.keys() | change.remove)
    ended = {block for block, end in held.banned.items() if end <= NOW}
    assert not ended & change.remove
    assert change.extend.keys() <= held.banned.keys()
    assert not change.add.keys() & held.banned.keys()


@given(ELEMENTS, ELEMENTS, st.floats(0.25, 75.0))
def test_no_ban_runs_out_between_two_looks(
    banned: Elements, held_banned: Elements, step: float
) -> None:
    """Who plans when ``due`` says so, or up to 75 s later, never lets a wanted ban run out."""
    wanted, now = Wanted(banned), NOW
    held = after(None, plan(wanted, None, now=now))
    held = Held({**held.banned, **held_banned}, frozenset(), intact=True)
    held = after(held, plan(wanted, held, now=now))
    for _ in range(50):
        following = due(wanted, held, now=now)
        if following is None or following > NOW + 60 * DAY:
            break
        now = max(following, now) + step
        assert alive(banned, now) <= alive(held.banned, now)
        change = plan(wanted, held, now=now)
        held = after(held, change)
        following = due(wanted, held, now=now)
        assert following is None or following > now


def test_nothing_held_and_others_rules() -> None:
    """All is made anew, without what has ended."""
    wanted = Wanted({(4, 1, 1): int(NOW) + 9, (4, 2, 2): int(NOW)}, frozenset({(4, 7, 7)}))
    made = Change(add={(4, 1, 1): int(NOW) + 9}, allow=frozenset({(4, 7, 7)}), rebuild=True)
    assert plan(wanted, None, now=NOW) == made
    assert plan(wanted, Held(wanted.banned, wanted.allowed, intact=False), now=NOW) == made


def test_half_of_a_ban_is_left() -> None:
    """A renewed ban is extended when less than half of it is left in the kernel, and not before."""
    block, end = (4, 1, 1), int(NOW) + 10_000
    wanted = Wanted({block: end})
    more, less = int(NOW) + 5_001, int(NOW) + 4_999
    assert not plan(wanted, Held({block: more}, frozenset(), intact=True), now=NOW)
    assert plan(wanted, Held({block: less}, frozenset(), intact=True), now=NOW).extend == {
        block: end
    }


def test_a_ban_that_is_about_to_end() -> None:
    """It is extended whatever the half: by a minute as well."""
    block = (4, 1, 1)
    held = Held({block: int(NOW + MARGIN) - 1}, frozenset(), intact=True)
    wanted = Wanted({block: int(NOW + MARGIN) + 60})
    assert plan(wanted, held, now=NOW).extend == wanted.banned


def test_a_ban_that_ends_this_moment() -> None:
    """The kernel may have it yet: renewed its end is another, which adding alone does not do."""
    block = (4, 1, 1)
    held = Held({block: int(NOW)}, frozenset(), intact=True)
    change = plan(Wanted({block: int(NOW) + 60}), held, now=NOW)
    assert (change.add, change.extend) == ({}, {block: int(NOW) + 60})


def test_what_ended_is_known_until_it_is_surely_gone() -> None:
    """So long after its end, and no longer."""
    held = Held({(4, 1, 1): int(NOW)}, frozenset(), intact=True)
    assert alive_in(held, NOW + LINGER - 1) is held
    assert alive_in(held, NOW + LINGER).banned == {}


def test_an_end_that_is_over_while_the_kernel_counts_on() -> None:
    """It is removed, and so is who is not wanted at all."""
    over, gone, stays = (4, 1, 1), (4, 2, 2), (4, 3, 3)
    held = Held(dict.fromkeys((over, gone, stays), int(NOW) + 900), frozenset(), intact=True)
    wanted = Wanted({over: int(NOW) - 5, stays: int(NOW) + 900})
    assert plan(wanted, held, now=NOW) == Change(remove=frozenset({over, gone}))


def test_a_nearer_end() -> None:
    """It is applied at once; what the kernel's clock may be wrong by is no nearer end."""
    block, end = (4, 1, 1), int(NOW) + 10_000
    held = Held({block: end}, frozenset(), intact=True)
    assert plan(Wanted({block: end - 4}), held, now=NOW).extend == {block: end - 4}
    assert not plan(Wanted({block: end - SLACK}), held, now=NOW)


def test_a_ban_for_good() -> None:
    """One that shall never end is made so at once, and one that shall end gets its end."""
    block, end = (4, 1, 1), int(NOW) + DAY
    forever = Wanted({block: FOREVER})
    assert plan(forever, Held({block: end}, frozenset(), intact=True), now=NOW).extend
    held = Held({block: FOREVER}, frozenset(), intact=True)
    assert plan(Wanted({block: end}), held, now=NOW).extend == {block: end}
    assert due(forever, held, now=NOW) is None
