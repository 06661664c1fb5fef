"""How figures look: on white, in print and without colour, with axes that say what they measure."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

INK, SOFT = "#1d1d1b", "#6b6b66"
WIDTH = 7.5  # inches, of every figure: a printed page's
STYLE: Any = {
    "font.size": 8.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "text.parse_math": False,  # a run's name may hold any character
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4de",
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class Look(NamedTuple):
    """How one series is drawn; without its colour, its grey, its dashes and its marker still tell it from the
    others."""

    color: str
    dashes: Any  # a line style as Matplotlib takes it
    marker: str


# In order of lightness, from black to the lightest that still reads on white (CIE L* 7, 30, 42, 50, 61, 71).
LOOKS = (
    Look("#161616", "-", "o"),
    Look("#14468c", (0, (5, 1.8)), "s"),
    Look("#b23b24", (0, (1.2, 1.2)), "^"),
    Look("#2b8578", (0, (6, 1.5, 1.2, 1.5)), "D"),
    Look("#c98517", (0, (9, 2)), "v"),
    Look("#8fb0d4", (0, (3, 1, 1, 1, 1, 1)), "X"),
)
REFERENCE = Look(SOFT, (0, (2, 3)), "")  # a line to read the others by


@contextmanager
def figure_style() -> Iterator[None]:
    """The style of all figures, for those that are made and saved within; Matplotlib's settings are as before
    afterwards."""
    with matplotlib.rc_context(STYLE):
        yield


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, 160 dots an inch, drawn by Agg without a display."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()
