"""``python3 -m apiban.cli``: the same as ``apiban``."""

from apiban.cli.main import main

main()
