"""``python -m servsim`` is ``servsim``."""

from servsim.cli import main

main()
