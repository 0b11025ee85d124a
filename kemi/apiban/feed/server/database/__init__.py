"""The feed's database: its tables, its migrations, and the way to them."""

from apiban.feed.server.database.connect import Database

__all__ = ["Database"]
