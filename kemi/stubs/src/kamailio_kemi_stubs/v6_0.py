"""Types of Kamailio 6.0's ``KSR`` (see the ``.pyi``); empty at run time."""

# Written by generate.py from lists/6.0.json: do not edit.

from kamailio_kemi_stubs._stand_in import stand_in


class Ksr:
    """Types only: annotate with it, nothing else."""


def __getattr__(name: str) -> type:
    return stand_in("6.0", __name__, name)
