"""``python -m servsim.cli`` is ``servsim``."""

from servsim.cli import main

main()
