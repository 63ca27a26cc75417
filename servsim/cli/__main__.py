"""``python -m servsim.cli`` is ``servsim``."""

from servsim.cli.app import main

main()
