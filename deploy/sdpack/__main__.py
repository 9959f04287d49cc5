"""`python -m sdpack` is the `sdpack` command."""

from sdpack.cli.main import main

main(prog_name="sdpack")
