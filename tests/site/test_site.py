"""The built site is whole: every link leads to a file and a place in it, nothing comes from elsewhere, search works.

`make test-site` builds it and runs this.
"""

from __future__ import annotations

import re
import shutil
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="the site is not built: make site"),
]


class Page(HTMLParser):
    """What a page names: places in it, links that a reader follows, files that the browser loads."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.language = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.places |= {named[name] for name in ("id", "name") if name in named}
        if tag == "html":
            self.language = named["lang"]
        if tag == "a" and "href" in named:
            self.links.add(named["href"])
        if tag == "link" and named.get("rel") in ("stylesheet", "icon", "preload") or tag == "base":
            self.loaded.add(named["href"])
        if "src" in named:
            self.loaded.add(named["src"])


@lru_cache(None)
def page_at(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text("utf-8"))
    return page


def pages() -> list[Path]:
    """Every page but 404.html, whose links are those of a server's root."""
    return [path for path in sorted(SITE.rglob("*.html")) if path.name != "404.html"]


def test_every_link_leads_to_a_file_and_a_place_in_it() -> None:
    followed = 0
    for path in pages():
        for link in page_at(path).links | page_at(path).loaded:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "data", "mailto"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(SITE)}: {link}"
            if parts.fragment and target.suffix == ".html" and parts.fragment != "__skip":
                assert unquote(parts.fragment) in page_at(target).places, f"{path.relative_to(SITE)}: {link}"
            followed += 1
    assert followed > 1000


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in pages():
        away = {link for link in page_at(path).loaded if urlsplit(link).scheme in ("http", "https")}
        assert not away, f"{path.relative_to(SITE)} loads {away}"
    for path in SITE.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:", path.read_text("utf-8")), path


def test_every_page_of_the_documentation_is_there_in_its_language() -> None:
    for source in (ROOT / "docs").rglob("*.md"):
        name = source.relative_to(ROOT / "docs").with_suffix(".html")
        assert page_at(SITE / name).language == ("ko" if name.parts[0] == "ko" else "en"), name
        text = (SITE / name).read_text("utf-8")  # the builder's words round the page
        assert ("Back to top" in text, "맨위로" in text) == (name.parts[0] != "ko", name.parts[0] == "ko"), name


def test_a_korean_page_and_its_english_one_lead_to_each_other_and_have_the_same_places() -> None:
    followed = sorted((SITE / "ko").rglob("*.html"))
    assert len(followed) > 5
    for korean in followed:
        english = SITE / korean.relative_to(SITE / "ko")
        for here, there in ((korean, english), (english, korean)):
            led = {(here.parent / unquote(link)).resolve() for link in page_at(here).links if not urlsplit(link).scheme}
            assert there.resolve() in led, f"{here.relative_to(SITE)} does not link to {there.relative_to(SITE)}"
        # a dot is in the anchors of docstrings alone, which the Korean page of the API leads to
        anchors = [re.findall(r'<h[1-6] id="([^".]+)"', page.read_text("utf-8")) for page in (korean, english)]
        assert anchors[0] and anchors[0] == anchors[1], korean.relative_to(SITE)


def test_every_public_name_has_its_section() -> None:
    text = (ROOT / "docs" / "python-api.md").read_text("utf-8")
    places = page_at(SITE / "python-api.html").places
    homes = re.findall(r"^::: ([\w.]+)\n    options:\n      heading:", text, re.M)
    assert len(homes) > 40
    for home in (*homes, "flawsmith.types.Condition", "flawsmith.types.Generated"):  # the records stand without a root
        assert home in places, f"python-api.html does not show {home}"


@pytest.fixture(scope="module")
def opened() -> Any:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the search is tested in a browser: make test-site")
    if CHROMIUM is None:
        pytest.skip("the search is tested in Chromium: apt install chromium")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


@pytest.mark.parametrize(
    ("words", "title"), [("hairline", "Thin scratches and hairlines"), ("신뢰 구간", "5. 결과 보기")]
)
def test_search_finds_pages_without_a_server(opened: Any, words: str, title: str) -> None:
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((SITE / "index.html").as_uri())
    opened.keyboard.press("Control+k")
    opened.keyboard.type(words)
    opened.get_by_text(title).first.wait_for(state="visible", timeout=20_000)
    assert all(url.startswith("file:") for url in asked)
