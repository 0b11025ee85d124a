"""Types of Kamailio 5.6's ``KSR`` (see the ``.pyi``); empty at run time."""

# Written by generate.py from lists/5.6.json: do not edit.

from kamailio_kemi_stubs._stand_in import stand_in


class Ksr:
    """Types only: annotate with it, nothing else."""


def __getattr__(name: str) -> type:
    return stand_in("5.6", __name__, name)
