"""`python -m unplay`."""

from unplay.cli import main

main()
