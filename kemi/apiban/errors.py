"""Every error that this package raises on purpose, in one tree.

::

    ApibanError
    +-- SettingsError           the settings cannot be used; .problems names each mistake
    +-- AddressError            a text is not an address, or not a network
    +-- FeedError               the feed gave no usable answer
    |   +-- FeedOutage          no answer at all, a 5xx, or one that came too late
    |   +-- FeedInvalid         an answer that is not what the API's contract says
    |   +-- FeedUnauthorized    the key was refused
    |   +-- FeedRateLimited     too many requests; .retry_after in seconds when the feed said so
    +-- StoreError              the store cannot be read or written
    |   +-- StoreTooNew         it was written by a newer version of this package
    |   +-- QueueBusy           the honeypot's queue is in use for longer than a worker may wait
    +-- SnapshotError           a snapshot file is missing, damaged or of an unknown format
    +-- BoardError              the shared counters cannot be used
    +-- FirewallError           the kernel's firewall cannot be read or changed

"End of list" and "not banned" are answers, not errors: see ``apiban.feed.answer``.
No message of these errors ever holds the API key.
"""

from __future__ import annotations


class ApibanError(Exception):
    """The root of the tree: one line, fit for an operator."""


class SettingsError(ApibanError):
    """The settings cannot be used.

    ``problems`` is a non-empty tuple of one-line texts, each naming the setting, the value and
    what is allowed.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class AddressError(ApibanError, ValueError):
    """A text is not an IP address, or not a network."""


class FeedError(ApibanError):
    """The feed gave no usable answer."""


class FeedOutage(FeedError):
    """No answer, a 5xx, or an answer that did not end within the deadline."""


class FeedInvalid(FeedError):
    """An answer that fits nothing in the contract: never "not banned", never "end of list"."""


class FeedUnauthorized(FeedError):
    """The feed refused the key."""


class FeedRateLimited(FeedError):
    """The feed says that we asked too often; ``retry_after`` is in seconds, or None."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class StoreError(ApibanError):
    """The store cannot be read or written."""


class StoreTooNew(StoreError):
    """The store was written by a newer version; nothing in it was touched."""


class QueueBusy(StoreError):
    """Other processes had the file for longer than this one may wait: it is as good as before."""


class SnapshotError(ApibanError):
    """A snapshot is missing, damaged, or in a format that this version does not know."""


class BoardError(ApibanError):
    """The shared counters cannot be mapped."""


class FirewallError(ApibanError):
    """The kernel's firewall cannot be used: what is missing, and the fix."""
