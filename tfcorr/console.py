"""Everything that is printed: texts as they are, whole where no terminal shows them, and commands that can be typed."""

import shlex
import sys
from pathlib import Path

import yaml
from rich.console import Console

WIDE = 10_000  # columns of a file or pipe, in which nothing is cut or broken


def plain_console() -> Console:
    """A console that takes no text for markup or an emoji's name: a title may hold brackets, an id colons."""
    return Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)


def on_one_line(text: str) -> str:
    """A text whose line breaks and control characters are written out, so that nothing of it is lost or obeyed.

    >>> on_one_line("i\\x0b4"), on_one_line("Amélie")
    ('i\\\\x0b4', 'Amélie')
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def command(*words: object) -> str:
    """What to type in a shell for these words.

    >>> command("tfcorr", "train", Path("my clicks.yaml")), command("tfcorr", "train", Path("-.yaml"))
    ("tfcorr train 'my clicks.yaml'", 'tfcorr train ./-.yaml')
    """
    texts = (f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words)
    return shlex.join(texts)


def assigned(name: str, value: object) -> str:
    """The option that sets a setting, for a shell.

    >>> print(assigned("data", {"source": "prepared", "path": "day 1"}))
    --set 'data={source: prepared, path: day 1}'
    """
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return command("--set", f"{name}={text.strip().removesuffix('...').strip()}")
