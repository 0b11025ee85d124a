"""Measurements that anybody can repeat; no test depends on them."""
