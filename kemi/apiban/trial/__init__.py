"""The main job tried out for real: Kamailio with the module, under SIPp, on one machine.

``bin/run`` is its entry; the integration tests use its parts.
"""
