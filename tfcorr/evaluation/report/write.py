"""A report as a folder: the page and its figures, whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

from tfcorr.evaluation.compare import Difference
from tfcorr.evaluation.report.charts import charts
from tfcorr.evaluation.report.measured import Measured
from tfcorr.evaluation.report.page import GENERATOR, page
from tfcorr.evaluation.style import figure_style, png
from tfcorr.files import write_folder
from tfcorr.settings import InputError

PAGE = "index.html"


def write_report(runs: Sequence[Measured], differences: Sequence[Sequence[Difference]], k: int, folder: Path) -> Path:
    """Writes the page and beside it every figure as NAME.png, in place of an earlier report; returns the page's path.

    `differences` are those of every run but the first to the first.
    """
    with figure_style():
        drawn = charts(runs, differences, k)
        images = {chart.name: png(chart.figure) for chart in drawn}
    text = page(runs, drawn, images, k)

    def write(partial: Path) -> None:
        partial.mkdir()
        for name, image in images.items():
            (partial / f"{name}.png").write_bytes(image)
        (partial / PAGE).write_text(text, encoding="utf-8")

    write_folder(folder, write)
    return folder / PAGE


def check_replaceable(folder: Path) -> None:
    """Raises: InputError if something stands there that is no earlier report, and would be lost."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    others = (
        [each.name for each in folder.iterdir() if each.name != PAGE and each.suffix != ".png"]
        if folder.is_dir()
        else [folder.name]
    )
    page = folder / PAGE
    if others or not page.is_file() or GENERATOR not in page.read_text(encoding="utf-8", errors="replace")[:1000]:
        held = f" (it holds {others[0]})" if others and folder.is_dir() else ""
        raise InputError(
            f"{folder}: is there already, and is no report that could be replaced{held}; give another folder by "
            "--output"
        )
