"""What a page says that a command prints, compared with what it prints."""

import re


def without_numbers(text: str) -> list[str]:
    """The lines that are not empty, each number a #, and blanks and a table's lines of any width one."""
    masked = re.sub(r"-?\d[\d.,]*", "#", text.replace(" (best)", ""))
    lines = [re.sub(r"[\s━─═]+", " ", line).strip() for line in masked.splitlines()]
    return [line for line in lines if line]
