"""The page, in a real headless Chromium, by keyboard, on a desk and on a phone."""

import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.serving.server.conftest import copy_of, start_server
from tfcorr.serving.recommend import Recommender

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, server):
    """A page that fails the test if it complains, or asks for anything from elsewhere."""
    opened = browser.new_page()
    complaints, asked = [], []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(server.url)
    yield opened
    opened.close()
    assert not complaints
    assert all(url.startswith((server.url, "data:")) for url in asked)


def choose(page, text):
    """The first that is offered for the text, however fast it is typed and entered."""
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_selector("#ranked li")


def shown(page, list_):
    return page.eval_on_selector_all(f"#{list_} .id", "ids => ids.map(id => id.textContent)")


def test_titles_are_completed_and_the_list_is_the_cascades_by_the_keyboard_alone(page, trained):
    page.keyboard.type("FILM no. 3")
    page.wait_for_selector("#offers li")
    offered = page.eval_on_selector_all("#offers small", "all => all.map(each => each.textContent)")
    assert offered[:2] == [item for item in trained_by_popularity(trained) if item.startswith("film-3")][:2]
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#search", "aria-activedescendant") == "offer-1"
    page.keyboard.press("Enter")
    page.wait_for_selector("#ranked li")
    choose(page, "film-12")
    expect(page.locator("#history li")).to_have_count(2)
    expected = Recommender(trained.folder).recommend([[offered[1], "film-12"]], 25)
    expect(page.locator("#ranked .id").first).to_have_text(expected["item"][0])
    assert shown(page, "ranked") == expected["item"].to_list()[:10]
    by_retriever = expected.sort("retriever_score", descending=True, maintain_order=True)["item"].to_list()
    assert shown(page, "retrieved") == by_retriever[:10]
    before = page.eval_on_selector_all("#ranked .moved", "all => all.map(each => each.firstChild.textContent)")
    for place, (item, text) in enumerate(zip(expected["item"], before, strict=False)):
        stood = by_retriever.index(item)
        assert text == f"{'▲' if place < stood else '▼' if place > stood else '='} ({stood + 1})"


def trained_by_popularity(run):
    order = sorted(range(len(run.catalogue.ids)), key=lambda place: -run.catalogue.counts[place])
    return [run.catalogue.ids[place] for place in order]


def test_bars_are_as_long_as_scores_are_high(page):
    choose(page, "film-12")
    for stage in ("ranker", "retriever"):
        widths = page.eval_on_selector_all(
            f"#ranked .{stage} i", "bars => bars.map(bar => parseFloat(bar.style.width))"
        )
        scores = page.eval_on_selector_all(
            f"#ranked .{stage} span", "all => all.map(each => Number(each.textContent.split(' ')[1]))"
        )
        assert sorted(widths, reverse=True) == [
            width for _, width in sorted(zip(scores, widths, strict=True), reverse=True)
        ]
        assert all(0 <= width <= 100 for width in widths)
    assert page.eval_on_selector("#ranked .ranker i", "bar => bar.style.width") == "100%"


def test_a_pasted_history_and_the_keys_that_take_back(page):
    page.fill("#search", "film-1, film-2,film-3")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ranked li")
    titles = "[...document.querySelectorAll('#history li')].map(each => each.firstChild.textContent)"
    assert page.evaluate(titles) == ["Film No. 1", "Film No. 2", "Film No. 3"]
    page.keyboard.press("Backspace")
    assert page.evaluate(titles) == ["Film No. 1", "Film No. 2"]
    page.get_by_role("button", name="Remove Film No. 1").press("Enter")
    assert page.evaluate(titles) == ["Film No. 2"]
    page.fill("#k", "3")
    page.keyboard.press("Enter")
    expect(page.locator("#ranked li")).to_have_count(3)
    assert page.url.endswith("#item=film-2&k=3")  # to be shared, or found again
    page.reload()
    expect(page.locator("#ranked li")).to_have_count(3)


def test_an_id_is_offered_before_what_holds_it(page):
    """As film-1 is, which is in film-10 to film-19 too."""
    choose(page, "film-1")
    expect(page.locator("#history li")).to_have_text("Film No. 1×")


def test_many_long_ids_are_asked_for_in_parts(page, server):
    ids = [f"{number}-{'x' * 120}" for number in range(40)]
    page.goto(f"{server.url}/#" + "&".join(f"item={each}" for each in ids))
    page.wait_for_selector("#ranked li")
    expect(page.locator("#history li")).to_have_count(40)


def test_a_link_is_opened_in_a_page_that_is_open_or_opening(page, server):
    for item in ("film-3", "film-5"):  # the first comes while the page may still be loading
        page.goto(f"{server.url}/#item={item}&k=4")
        expect(page.locator("#history li")).to_have_text(f"Film No. {item[5:]}×")
        expect(page.locator("#ranked li")).to_have_count(4)


def test_what_the_model_does_not_know_is_said(page):
    page.fill("#search", "who?, what?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ranked li")
    assert "these are the most popular items" in page.inner_text("#status")


def test_a_phone_shows_all_without_scrolling_sideways(page):
    page.set_viewport_size(PHONE)
    choose(page, "film-12")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    ranked, retrieved = (page.locator(f"#{name}").bounding_box() for name in ("ranked", "retrieved"))
    assert retrieved["y"] > ranked["y"] + ranked["height"]  # one below the other
    assert all(box["width"] > 0.7 * PHONE["width"] for box in (ranked, retrieved))


def test_the_page_asks_for_the_key(browser, trained, tmp_path):
    server = start_server(copy_of(trained, tmp_path), "--model", "cascade", "--api-key", "sesame")
    try:
        opened = browser.new_page()
        opened.goto(server.url)
        opened.wait_for_selector("#key")
        assert "must carry the API key" in opened.inner_text("#status")
        opened.fill("#key", "sesame")
        opened.press("#key", "Tab")
        opened.fill("#search", "film-1,")
        opened.press("#search", "Enter")
        opened.wait_for_selector("#ranked li")
        opened.close()
    finally:
        server.process.kill()
        server.process.wait(30)
