"""The pages are what the code says, their links lead somewhere, and the site made of them needs nothing from
elsewhere."""

import importlib.util
import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "pipelines" / "README.md",
    ROOT / "saved_models" / "README.md",
]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate():
    return script("generate")


@pytest.fixture(scope="module")
def cooperation():
    return script("cooperation")


@pytest.mark.parametrize("page", ["settings.md", "commands.md", "results.md"])
def test_a_reference_page_is_what_the_code_says(generate, page):
    """If it is not: python docs/generate.py"""
    assert (ROOT / "docs" / page).read_text() == generate.PAGES[page]()


def test_the_studies_tables_are_what_their_cells_say(generate, tmp_path):
    tables = generate.write_studies(tmp_path)
    assert {table.stem for table in tables} >= {"table2", "table3", "table4", "table5", "table6", "figure2"}
    for table in tables:
        assert table.read_text() == (ROOT / "docs" / "studies" / table.name).read_text()


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


def test_every_file_and_test_that_how_it_works_names_is_there():
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    named = re.findall(r"`((?:tfcorr|tests)/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len([test for _, test in named if test]) > 5
    for path, test in named:
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), test


LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}


class Page(HTMLParser):
    """What a page of the site is made of: the places that it can be entered at, its links, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads, self.equations, self.text = {""}, [], [], 0, ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.add(given.get("id") or "")
        self.equations += tag == "math"
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if given.get(LOADS.get(tag)):
            self.loads.append(given[LOADS[tag]])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built with every warning an error, and its pages by their names."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder, {path.name: Page(path) for path in folder.glob("*.html")}


def test_the_site_has_every_page(site):
    _, pages = site
    assert {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")} < pages.keys()
    assert {"pipelines.html", "runs.html", "changelog.html", "from-csv-to-served-list.html"} < pages.keys()


def test_the_site_asks_for_nothing_outside_itself(site):
    folder, pages = site
    for name, page in pages.items():
        assert page.loads, name
        for address in page.loads:
            assert not urlsplit(address).netloc, f"{name} loads {address}"
            assert name == "404.html" or (folder / address).is_file(), f"{name} loads {address}"
    for sheet in folder.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", sheet.read_text()) == [], sheet


def test_links_within_the_site_lead_somewhere(site):
    folder, pages = site
    for name, page in pages.items():
        for link in (
            page.links if name != "404.html" else []
        ):  # that page is shown at any address, and so links from the root
            scheme, host, path, _, anchor = urlsplit(link)
            if scheme or host:
                assert scheme in ("http", "https"), link
                continue
            assert (folder / (path or name)).is_file(), f"{name} links to {link}"
            if (path or name).endswith(".html"):
                assert unquote(anchor) in pages[path or name].anchors, f"{name} links to {link}"


def test_equations_are_drawn_by_the_browser(site):
    _, pages = site
    assert pages["how-it-works.html"].equations > 50
    for name, page in pages.items():
        assert "arithmatex" not in page.text, name
        assert re.findall(r"\\[(\[]|\\(?:frac|log|cup|sum)|\$\$", page.text) == [], name


def test_the_picture_is_what_its_script_draws(cooperation):
    """If it is not: python docs/cooperation.py"""
    assert cooperation.PICTURE.read_bytes() == cooperation.svg(cooperation.draw())


def test_no_words_of_the_picture_overlap(cooperation):
    figure = cooperation.draw()
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in figure.axes[0].texts}
    assert len(boxes) > 20
    assert [pair for pair in itertools.combinations(boxes, 2) if boxes[pair[0]].overlaps(boxes[pair[1]])] == []
    for words, box in boxes.items():
        assert figure.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1, words
