"""The commands: each parses, calls one library function, and prints."""

import os
import re
import sys
from errno import ENOSPC

import typer

from tfcorr.cli.app import app, console
from tfcorr.settings import InputError

# Each adds its commands, in the order of the help.
from tfcorr.cli import data, training, measuring, serving  # isort: skip

FULL = os.strerror(ENOSPC)
__all__ = ["app", "console", "data", "main", "measuring", "serving", "training"]


@app.command()
def doctor() -> None:
    """Prints versions and devices, and whether everything loads.

    Example: `tfcorr doctor`
    """
    from tfcorr.doctor import examine

    table, healthy = examine()
    console.print(table)
    raise typer.Exit(0 if healthy else 1)


def _spread(arguments: list[str]) -> list[str]:
    """Lets --k be followed by several numbers: --k 5 10 20 becomes --k 5 --k 10 --k 20."""
    spread: list[str] = []
    for argument in arguments:
        if len(spread) >= 2 and spread[-2] == "--k" and argument.isdigit():
            spread.append("--k")
        spread.append(argument)
    return spread


def main() -> None:
    """The console script: exits with 0 when done, 1 when input or settings are wrong, 2 on wrong usage."""
    try:
        for argument in sys.argv[1:]:
            if any("\udc80" <= each <= "\udcff" for each in argument):
                raise InputError(f"{argument!r}: is no UTF-8")
        app(args=_spread(sys.argv[1:]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if FULL in str(error):  # of the system, TensorFlow or Polars
            place = max(re.findall(r"/[^\s;:']+", str(error)), key=len, default="output")
            advice = "free some, then give the command again, tfcorr train with --resume"
            print(f"error: {place}: no space is left on the disk; {advice}", file=sys.stderr)
        elif isinstance(error, OSError):  # no permission, a file where a folder should be
            print(f"error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        else:
            raise
        sys.exit(1)
