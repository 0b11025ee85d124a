"""Typed stubs and a checking fake of ``KSR``, the object that Kamailio gives to Python scripts.

``Ksr`` here is the one of the oldest supported Kamailio (5.6): code that is written against
it uses nothing that the oldest release lacks.
"""

from kamailio_kemi_stubs.v5_6 import Ksr

__all__ = ["Ksr"]
