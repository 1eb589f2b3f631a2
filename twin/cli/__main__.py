"""`python -m twin.cli`: the `cartwin` command where its script is not on the path."""

from twin.cli import main

main()
