"""APIBAN for Kamailio: the sources that APIBAN lists are dropped before any SIP processing.

The data goes one way: ``feed`` -> ``sync`` -> ``store`` -> ``snapshot`` -> ``gate`` -> verdict.
"""

__version__ = "0.1.0"
