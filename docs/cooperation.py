"""Draws cooperation.svg: how retriever and ranker train each other, and how they answer together.

python docs/cooperation.py
"""

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

PICTURE = Path(__file__).with_name("cooperation.svg")
WIDTH, HEIGHT = 720, 890  # of the drawing's units, 100 an inch
INK, GREY, LINE, PAPER = "#1d2330", "#525b6b", "#c9cdd5", "#fcfcfa"
RETRIEVER, RANKER = "#1f4e8c", "#ffd9a0"  # one dark, one light, so that they differ without colours too


def draw() -> Figure:
    """The whole picture, on a card of its own colour, so that it reads the same on a light and on a dark page."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    _box(axes, (WIDTH / 2, HEIGHT / 2), (WIDTH - 6, HEIGHT - 6), PAPER, edge=LINE)
    _training(axes)
    axes.plot([30, WIDTH - 30], [212, 212], color=LINE, linewidth=1)
    _serving(axes)
    return figure


def svg(figure: Figure) -> bytes:
    """The figure as SVG: the same bytes each time, its letters as outlines, which look alike everywhere."""
    file = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "tfcorr", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(
            file, metadata={"Date": None, "Creator": None, "Title": "How retriever and ranker cooperate"}
        )
    return file.getvalue()


def _training(axes: Axes) -> None:
    _text(axes, (30, 854), "Training, one step", size=17, bold=True, align="left")

    _box(axes, (130, 780), (200, 80), "white")
    _text(axes, (130, 794), "proposal Y", bold=True)
    _text(axes, (130, 766), "fixed and simple", size=12, color=GREY)
    _arrow(axes, (231, 780), (335, 780))
    _text(axes, (281, 797), "draw n")
    _box(axes, (515, 780), (356, 80), "white")
    _text(axes, (515, 797), "pool C", bold=True)
    for place in range(18):
        _item(axes, (362 + place * 18, 765), chosen=place in (3, 8, 9, 15))

    _arrow(axes, (452, 739), (452, 659))
    _text(axes, (474, 710), "draw L by the", align="left")
    _text(axes, (474, 686), "retriever’s softmax", align="left")
    axes.plot(
        [80, 80, 448],
        [503, 699, 699],
        color=INK,
        linewidth=1.8,
        solid_joinstyle="round",
        marker="o",
        markevery=[2],
        markersize=6,
    )
    _text(axes, (260, 716), "its scores say which")

    _box(axes, (515, 618), (356, 80), "white")
    _text(axes, (515, 635), "target k and L hard negatives S", bold=True)
    axes.plot([432], [602], marker="*", markersize=17, color=INK)
    for place in range(4):
        _item(axes, (486 + place * 34, 602), chosen=True)
    _arrow(axes, (430, 577), (252, 505))
    _arrow(axes, (565, 577), (565, 505))

    _box(axes, (165, 458), (270, 90), RETRIEVER)
    _text(axes, (165, 475), "Retriever M", size=15, bold=True, color="white")
    _text(axes, (165, 444), "an inner product", color="white")
    _box(axes, (565, 458), (256, 90), RANKER, width=2.2)
    _text(axes, (565, 475), "Ranker R", size=15, bold=True)
    _text(axes, (565, 444), "any network")
    _arrow(axes, (436, 458), (303, 458), width=3.4, style=(0, (2.2, 1.1)))
    _text(axes, (373, 481), "KL", size=15, bold=True)
    _text(axes, (362, 391), "the ranker teaches", size=12, color=GREY)
    _text(axes, (362, 369), "the retriever its", size=12, color=GREY)
    _text(axes, (362, 347), "order of S", size=12, color=GREY)

    for middle in (145, 578):
        _arrow(axes, (middle, 412), (middle, 336))
        _box(axes, (middle, 293), (230, 80), "white")
        _text(axes, (middle, 307), "sampled softmax", bold=True)
        _text(axes, (middle, 279), "tell k from S", size=12, color=GREY)


def _serving(axes: Axes) -> None:
    _text(axes, (30, 178), "Serving, one answer", size=17, bold=True, align="left")
    # Each tower narrows what it is handed.
    _stage(axes, (168, 322), (128, 76), RETRIEVER)
    _text(axes, (245, 82), "Retriever", size=14, bold=True, color="white")
    _stage(axes, (446, 562), (76, 40), RANKER)
    _text(axes, (503, 82), "Ranker", size=14, bold=True)
    for x, what, remark in (
        (82, "all items", "by an index"),
        (384, "500", "candidates"),
        (640, "the best k", "in order"),
    ):
        _text(axes, (x, 94), what, bold=True)
        _text(axes, (x, 70), remark, size=12, color=GREY)
    for start, end in ((136, 167), (323, 336), (432, 445), (563, 582)):
        axes.plot([start, end], [82, 82], color=INK, linewidth=1.8)


def _box(
    axes: Axes, centre: tuple[float, float], size: tuple[float, float], fill: str, edge: str = INK, width: float = 1.3
) -> None:
    corner = centre[0] - size[0] / 2, centre[1] - size[1] / 2
    style = "round,pad=0,rounding_size=10"
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, facecolor=fill, edgecolor=edge, linewidth=width))


def _stage(axes: Axes, x: tuple[float, float], heights: tuple[float, float], fill: str) -> None:
    """A tower from left to right, as high as what it takes and what it hands on."""
    corners = [
        (side, 82 + sign * height / 2)
        for side, height, signs in zip(x, heights, ((1, -1), (-1, 1)), strict=True)
        for sign in signs
    ]
    axes.add_patch(Polygon(corners, facecolor=fill, edgecolor=INK, linewidth=1.5))


def _item(axes: Axes, centre: tuple[float, float], chosen: bool) -> None:
    fill, edge = (INK, INK) if chosen else ("white", GREY)
    axes.add_patch(Rectangle((centre[0] - 6, centre[1] - 6), 12, 12, facecolor=fill, edgecolor=edge, linewidth=1))


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    width: float = 1.8,
    style: str | tuple[float, tuple[float, ...]] = "-",
) -> None:
    head = 13 + 3 * width
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=head,
            linewidth=width,
            linestyle=style,
            color=INK,
            shrinkA=0,
            shrinkB=0,
        )
    )


def _text(
    axes: Axes,
    place: tuple[float, float],
    text: str,
    size: float = 13.5,
    bold: bool = False,
    color: str = INK,
    align: str = "center",
) -> None:
    weight = "bold" if bold else "normal"
    axes.text(
        *place,
        text,
        fontsize=size,
        fontweight=weight,
        color=color,
        ha=align,
        va="center_baseline",
        family="DejaVu Sans",
    )


if __name__ == "__main__":
    PICTURE.write_bytes(svg(draw()))
