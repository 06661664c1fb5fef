"""What a page says that a command prints, compared with what it prints."""

import re

SECOND = re.compile(
    "(?<=ranks best; next is )(?:popularity|counting transitions|the retriever alone)"
)  # by about nothing, on small data


def without_numbers(text: str) -> list[str]:
    """The lines that are not empty, each number a #, blanks and a table's lines of any width one, whatever ranks
    second."""
    masked = re.sub(r"-?\d[\d.,]*", "#", SECOND.sub("…", text.replace(" (best)", "")))
    lines = [re.sub(r"[\s━─═]+", " ", line).strip() for line in masked.splitlines()]
    return [line for line in lines if line]
