"""``python -m minisbert`` is ``minisbert``."""

from minisbert.cli import main

main()
