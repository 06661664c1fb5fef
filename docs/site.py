"""What mkdocs does not do by itself: pages that live elsewhere in the repository, the notebook as a page, equations as
MathML.

mkdocs calls the functions by their names; mkdocs.yml names this file.
"""

import html
import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
NOTEBOOK = "docs/from-csv-to-served-list.ipynb"
ELSEWHERE = {  # a file of the repository -> its page
    "pipelines/README.md": "pipelines.md",
    "saved_models/README.md": "runs.md",
    "CHANGELOG.md": "changelog.md",
    NOTEBOOK: "from-csv-to-served-list.md",
}
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)")
_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made of other files."""
    for source, page in ELSEWHERE.items():
        text = notebook_text(ROOT / source) if source == NOTEBOOK else (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links are right where the text lives; here they lead to the pages of what they name."""
    path = page.file.src_uri
    source = next((each for each, made in ELSEWHERE.items() if made == path), f"docs/{path}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        return f"]({ELSEWHERE.get(target, target.removeprefix('docs/'))}{link[2] or ''})"

    return _LINK.sub(moved, markdown)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Equations become MathML, which browsers draw without a script or a font of ours."""
    return _MATH.sub(
        lambda math: mathml(html.unescape(math[2]).strip(), "block" if math[1] == "div" else "inline"), content
    )


def mathml(latex: str, display: str) -> str:
    """An equation, with the thin space after a function's name that TeX would leave."""
    return re.sub(
        r"(<mi>(?:log|exp)</mi>)(?!<mo|<mrow><mo)", r'\1<mspace width="0.17em"/>', convert(latex, display=display)
    )


def notebook_text(path: Path) -> str:
    """A notebook as Markdown: its texts, its code, and what the code printed."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        printed = "".join(each.get("text", "") or each.get("data", {}).get("text/plain", "") for each in cell.outputs)
        if printed.strip():
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join([*parts, f"[This notebook as a file]({path.name}){{: download}}"])
