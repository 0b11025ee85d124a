"""The firewall client: the list in the kernel, for hosts without Kamailio, and beside one.

snapshot -> ``wanted`` (what the kernel should hold) -> ``plan`` (the difference to what it does
hold) -> a backend (nftables, ipset, dry-run), which carries a change out as one transaction.
``client`` does that again and again; ``report`` is what it says of itself.
"""
