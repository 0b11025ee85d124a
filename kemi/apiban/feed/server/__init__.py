"""A feed of our own: an APIBAN-compatible service with honeypots behind it.

report -> evidence -> claims -> listings -> API. ``service.py`` puts the parts together.
"""
