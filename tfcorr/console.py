"""Where everything is printed: texts as they are, and whole where no terminal shows them."""

import sys

from rich.console import Console

WIDE = 10_000  # columns of a file or pipe, in which nothing is cut or broken


def plain_console() -> Console:
    """A console that takes no text for markup or an emoji's name: a title may hold brackets, an id colons."""
    return Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)
