"""What runs inside Kamailio: the guard of each worker, the edge's routing, the sync's keeper.

``KSR`` comes in as an argument everywhere; only the script that Kamailio loads imports it.
"""

from apiban.kemi.edge import Edge
from apiban.kemi.guard import DROP, PASS, Guard
from apiban.kemi.node import Node

__all__ = ["DROP", "PASS", "Edge", "Guard", "Node"]
