"""The sync: brings the feed's list into the store and publishes it, within the rate limit.

It runs in a process of its own (``python3 -m apiban.sync``) that Kamailio's rtimer starts and
drives with ticks: docs/adr/0002 says why. ``machine.py`` is the state machine.
"""
