"""The page to try the cascade on, and the titles that it completes."""

from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
from aiohttp import web
from grpc import StatusCode
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tfcorr.serving.saved_model import CATALOGUE
from tfcorr.serving.server.errors import RequestError
from tfcorr.serving.server.model import LoadedModel
from tfcorr.serving.server.registry import Registry
from tfcorr.serving.server.threads import within

SECONDS = 10.0  # that reading the titles may take
SHOWN = 10  # titles that are offered
ASKED = 1000  # ids whose titles may be asked for at once
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


class Page:
    """Handlers; items are those of the cascade's version that answers."""

    def __init__(self, registry: Registry, max_k: int) -> None:
        """max_k is how many candidates the page may ask for."""
        self.registry = registry
        text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
        self._text = text.replace('"MAX_K"', f'"{max_k}"')
        self._items: tuple[LoadedModel | None, pl.DataFrame] = None, pl.DataFrame()

    async def html(self, _: web.Request) -> web.Response:
        """The page, which asks for nothing from elsewhere."""
        return web.Response(text=self._text, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def items(self, request: web.Request) -> web.Response:
        """?q=TEXT: the item of this id, then the most popular whose title or id holds it; ?id=A&id=B: these. [{"id": …,
        "title": …}]."""
        items = await self._of_the_version_that_answers()
        if "id" in request.query:
            wanted = request.query.getall("id")[:ASKED]
            return web.json_response(items.filter(pl.col("id").is_in(wanted)).select("id", "title").to_dicts())
        text = request.query.get("q", "").lower()
        holds = items.filter(pl.col("text").str.contains(text, literal=True))
        found = pl.concat([items.filter(pl.col("id").str.to_lowercase() == text), holds]).unique(
            "id", keep="first", maintain_order=True
        )
        found = found.head(SHOWN)
        return web.json_response(found.select("id", "title").to_dicts())

    async def _of_the_version_that_answers(self) -> pl.DataFrame:
        model = self.registry.find(ModelSpec(name="cascade"))
        of, items = self._items
        if of is not model:
            path = self.registry.folder / "cascade" / str(model.version) / CATALOGUE
            try:
                items = await within(SECONDS, partial(_read, path))
            except (OSError, pl.exceptions.PolarsError) as error:  # TimeoutError is one of the first
                first = (str(error).splitlines() or [f"it took more than {SECONDS:g} s"])[0]
                raise RequestError(StatusCode.UNAVAILABLE, f"{path}: cannot be read: {first}") from None
            self._items = model, items
        return items


def _read(path: Path) -> Any:
    text = (pl.col("id") + "\n" + pl.col("title").fill_null("")).str.to_lowercase()
    return pl.read_parquet(path).with_columns(text.alias("text"))
