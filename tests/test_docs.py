"""The pages are what the code says, and their links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "pipelines" / "README.md", ROOT / "saved_models" / "README.md"]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "commands.md"])
def test_a_reference_page_is_what_the_code_says(generate, page):
    """If it is not: python docs/generate.py"""
    assert (ROOT / "docs" / page).read_text() == generate.PAGES[page]()


@pytest.mark.parametrize("page", ["settings.md", "commands.md"])
def test_everything_is_described(page):
    rows = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if heading:
            lines = [line.lstrip("# ").lower() for line in file.read_text().splitlines() if line.startswith("#")]
            headings = [re.sub(r"[^\w -]", "", line).replace(" ", "-") for line in lines]
            assert heading in headings, target
