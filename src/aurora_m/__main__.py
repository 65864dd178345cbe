"""`python -m aurora_m` is `aurora-m`."""

from .cli import main

main()
