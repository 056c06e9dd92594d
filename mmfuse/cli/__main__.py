"""`python -m mmfuse.cli`, as launchers of several processes start it."""

from mmfuse.cli import main

main()
