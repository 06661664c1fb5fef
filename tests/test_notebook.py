"""docs/from-csv-to-served-list.ipynb runs, and prints what it shows.

After a change: jupyter execute --inplace docs/from-csv-to-served-list.ipynb
"""

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.printed import without_numbers

NOTEBOOK = Path(__file__).parents[1] / "docs" / "from-csv-to-served-list.ipynb"


def printed(cell):
    assert all(output.output_type == "stream" and output.name == "stdout" for output in cell.outputs), cell.source
    return "".join(output.text for output in cell.outputs)


def test_the_notebook_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    shown = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    run = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for before, now in zip(shown, run, strict=True):
        assert without_numbers(printed(now)) == without_numbers(printed(before)), now.source
    served = printed(run[-2])
    assert re.findall(r"│ (\d) +┆ 1 +┆ (p\d+) ", served) == [
        ("0", "p19"),
        ("1", "p0"),
    ]  # the rule by which the table was made
    assert list(tmp_path.iterdir()) == []  # it leaves the folder that it is in as it was
