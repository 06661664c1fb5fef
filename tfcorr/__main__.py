"""`python -m tfcorr` is the command `tfcorr`."""

from tfcorr.cli import main

main()
