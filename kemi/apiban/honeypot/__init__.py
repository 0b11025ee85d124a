"""The honeypot: a careless PBX that nobody should call, and a queue of those who do.

A message counts as a *sighting* of its source only when the source proved that it receives what
is sent to it: see ``nonce.py``. Everything else is kept apart, bounded, as *unproven*.
"""
