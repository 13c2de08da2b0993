"""The documentation's pages that follow from the code, and that none is missing from the site.

`python tests/test_documentation.py` writes the tables of docs/command-line.md and of its Korean page anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BEGIN, END = "<!-- verbs: written by tests/test_documentation.py -->", "<!-- end of verbs -->"


# --- docs/python-api.md -------------------------------------------------------------------------------------------


def objects_of_the_api_page() -> dict[str, str]:
    """Return {public name: where it is defined} of every object that docs/python-api.md shows."""
    text = (DOCS / "python-api.md").read_text("utf-8")
    shown = re.findall(r"^::: ([\w.]+)\n    options:\n      heading: ([\w.]+)$", text, re.M)
    assert len({name for _, name in shown}) == len(shown), "docs/python-api.md shows a name twice"
    return {name: home for home, name in shown}


def test_every_public_name_is_on_the_api_page() -> None:
    import flawsmith
    from flawsmith import _HOMES

    shown = objects_of_the_api_page()
    public = {f"flawsmith.{name}": f"{_HOMES[name]}.{name}" for name in flawsmith.__all__}
    text = (ROOT / "src/flawsmith/interfaces.py").read_text("utf-8")
    contracts = re.findall(r"^class ([A-Z]\w+)", text, re.M)
    public |= {name: name for name in (f"flawsmith.interfaces.{contract}" for contract in contracts)}
    names = []  # these packages import torch or Anomalib: their names are read
    for package in ("testing", "integrations.anomalib"):
        source = (ROOT / "src/flawsmith" / package.replace(".", "/") / "__init__.py").read_text("utf-8")
        listed = re.search(r"__all__ = \[(.+?)\]", source, re.S)
        assert listed is not None
        names += [f"flawsmith.{package}.{name}" for name in re.findall(r'"(\w+)"', listed[1])]
    assert sorted(shown) == sorted([*public, *names])
    for name, home in public.items():
        assert shown[name] == home, f"docs/python-api.md: {name} is defined in {home}"


def test_what_the_api_page_names_is_defined_there() -> None:
    for name, home in objects_of_the_api_page().items():
        module, _, attribute = home.rpartition(".")
        path = ROOT / "src" / module.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        written = rf"^(?:class|def) {attribute}\b|^{attribute}\b.* = |^    \"{attribute}\",$"
        assert re.search(written, path.read_text("utf-8"), re.M), f"{name}: {home} is not defined in {path}"


def test_the_korean_api_page_names_the_same() -> None:
    """It says what each name is for, and leads to its docstring on the English page."""
    text = (DOCS / "ko" / "python-api.md").read_text("utf-8")
    rows = dict(re.findall(r"^- \[`([\w.]+)`\]\(\.\./python-api\.md#([\w.]+)\): .*[가-힣]", text, re.M))
    records = re.findall(r"^class ([A-Z]\w+)", (ROOT / "src/flawsmith/types.py").read_text("utf-8"), re.M)
    assert rows == objects_of_the_api_page() | {name: f"flawsmith.types.{name}" for name in records}


# --- mkdocs.yml ---------------------------------------------------------------------------------------------------


class _Plain(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python functions of the builder, as text."""


_Plain.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def pages_of(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages_of(part)]


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = pages_of(yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), _Plain)["nav"])
    there = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert sorted(navigation) == there


# --- docs/command-line.md -----------------------------------------------------------------------------------------


HEADS = {"docs": ("default", "required"), "ko": ("기본값", "필수")}


@pytest.mark.parametrize("folder", ["docs", "docs/ko"])
def test_the_command_line_page_is_of_today(folder: str) -> None:
    page = ROOT / folder / "command-line.md"
    assert page.read_text("utf-8") == with_verbs(page), f"{page} is behind: run `python tests/test_documentation.py`"


def with_verbs(page: Path) -> str:
    """Return the page of the command line with its tables as the verbs are now, in the language of its folder."""
    from flawsmith.cli.korean import CATALOGUE

    catalogue = json.loads(CATALOGUE.read_text("utf-8")) if page.parent.name == "ko" else {}
    head, _, rest = page.read_text("utf-8").partition(BEGIN)
    return f"{head}{BEGIN}\n{verbs(HEADS[page.parent.name], catalogue)}{END}{rest.partition(END)[2]}"


def verbs(heads: tuple[str, str], catalogue: dict[str, str]) -> str:
    """Return a section for each verb, with a table of its arguments and options; texts in the catalogue's language."""
    import typer

    from flawsmith.cli import app

    parts = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        words = [word_of(parameter) for parameter in command.params if parameter.param_type_name == "argument"]
        text = catalogue.get(command.help, command.help)
        parts.append(f"\n## flawsmith {name}\n\n{text}\n\n```\n{' '.join(['flawsmith', name, *words])}\n```\n")
        parts += [f"\n| | {heads[0]} | |\n|---|---|---|\n"]
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        parts += [row(parameter, heads[1], catalogue) for parameter in shown]
    return "".join(parts) + "\n"


def word_of(argument: Any) -> str:
    word = argument.metavar or argument.name.upper()
    return word if argument.required else f"[{word}]"


def row(parameter: Any, required: str, catalogue: dict[str, str]) -> str:
    argument = parameter.param_type_name == "argument"
    names = word_of(parameter) if argument else ", ".join((*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    shown = "" if default in (None, "", [], (), False) or callable(default) else f"`{default}`"
    if parameter.required:
        shown = required
    text = catalogue.get(parameter.help, parameter.help or "").replace("|", "\\|")
    return f"| `{names}` | {shown} | {text} |\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    for page in (DOCS / "command-line.md", DOCS / "ko" / "command-line.md"):
        page.write_text(with_verbs(page), "utf-8")


# --- notebooks ----------------------------------------------------------------------------------------------------

NOTEBOOKS = sorted(path for path in (ROOT / "examples" / "notebooks").glob("*.py") if path.name != "render.py")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_shows_is_of_today(notebook: Path) -> None:
    """Its cells, in order, are those of the rendered page; its pictures are there, and none is left over."""
    folder = notebook.parent / "rendered"
    page = (folder / f"{notebook.stem}.md").read_text("utf-8")
    blocks = re.split(r"^# %%", notebook.read_text("utf-8"), flags=re.M)[1:]
    cells = [block.partition("\n")[2].strip() for block in blocks if not block.startswith(" [markdown]")]
    shown = [text.strip() for text in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)]
    assert len(cells) > 3 and shown == cells, f"{notebook.name} has changed: make notebooks"
    pictures = re.findall(r"\]\(([\w-]+\.jpg)\)", page)
    assert sorted(pictures) == sorted(path.name for path in folder.glob(f"{notebook.stem}-*.jpg"))
    assert notebook.name in (notebook.parent / "README.md").read_text("utf-8")
    assert "Traceback" not in page


# --- docs/methods.md ----------------------------------------------------------------------------------------------


def test_every_generator_is_explained_with_a_figure() -> None:
    from flawsmith import registry

    page = (DOCS / "methods.md").read_text("utf-8")
    shown = {name.replace("-", "_") for name in re.findall(r"\]\(figures/([\w-]+)\.jpg\)", page)}
    for name in registry.entries("generators"):
        assert f"**`{name}`**" in page and name in shown, f"docs/methods.md: {name} has no text or no figure"
    figures = list((DOCS / "figures").glob("*.jpg"))
    assert {path.stat().st_size < 150_000 for path in figures} == {True}
    assert sum(path.stat().st_size for path in figures) < 1_200_000


# --- docs/ko/ ------------------------------------------------------------------------------------------------------


@pytest.fixture
def korean(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    import korean  # type: ignore[import-not-found]

    return korean


@pytest.mark.parametrize("page", sorted((DOCS / "ko").rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_a_korean_page_follows_its_english_one(korean: Any, page: Path) -> None:
    assert korean.behind(page) == [], f"mend it, then: python docs/site/korean.py {page.relative_to(ROOT)}"


def test_korean_pages_link_to_korean_pages(korean: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in (*korean.pages(), korean.README):
        assert page.read_text("utf-8") == korean.relinked(page), f"{page}: run `python docs/site/korean.py --links`"
    docs, readme = tmp_path / "docs", tmp_path / "README.ko.md"
    monkeypatch.setattr(korean, "DOCS", docs)
    monkeypatch.setattr(korean, "KOREAN", docs / "ko")
    page = docs / "ko/how-to/a.md"
    page.parent.mkdir(parents=True)
    (docs / "ko/b.md").write_text("나", "utf-8")
    kept = "[라](../../d.md) [마](https://x.y/b.md) [b.md](../b.md) [가](../../how-to/a.md#e)"
    page.write_text(f"[나](../../b.md#c) {kept}", "utf-8")
    readme.write_text("[나](docs/b.md), [README](README.md)", "utf-8")
    assert korean.relinked(page) == f"[나](../b.md#c) {kept}"
    assert korean.relinked(readme) == "[나](docs/ko/b.md), [README](README.md)"


def anchors_on_github(korean: Any, text: str) -> set[str]:
    """Return what a link to a page may name after `#` on GitHub: its headings, and what `<a id>` says."""
    made, there = Counter[str](), set(re.findall(r'^<a id="([^"]+)"></a>', korean.FENCE.sub("", text), re.M))
    for _, words in korean.headings_of(text):
        plain = re.sub(r"[^\w\- ]", "", words).strip().lower().replace(" ", "-")
        there.add(f"{plain}-{made[plain]}" if made[plain] else plain)
        made[plain] += 1
    return there


def test_every_anchor_that_a_korean_page_links_to_is_there(korean: Any) -> None:
    """Korean headings have Korean anchors on GitHub; those that are linked to have `<a id="english-one"></a>` above."""
    lost = []
    for page in (*korean.pages(), korean.README):
        text = korean.FENCE.sub("", page.read_text("utf-8"))
        for path, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", text):
            target = (page.parent / path).resolve() if path else page
            # What the English page of the API links to is made by the site's builder.
            if target != DOCS / "python-api.md" and anchor not in anchors_on_github(korean, target.read_text("utf-8")):
                lost.append(f"{page.relative_to(ROOT)} links to {path}#{anchor}")
    assert not lost, "write <a id> above the heading:\n" + "\n".join(lost)


def test_a_korean_page_whose_english_moved_is_named(
    korean: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(korean, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(korean, "KOREAN", tmp_path / "docs" / "ko")
    english, page = tmp_path / "docs/a.md", tmp_path / "docs/ko/a.md"
    page.parent.mkdir(parents=True)
    english.write_text("# A\n\n## B\n\n![c](d.jpg)\n\n```bash\n# no heading\n```\n", "utf-8")
    page.write_text("# 가\n\n## 나\n\n![다](../d.jpg)\n\n```bash\n# 제목 아님\n```\n", "utf-8")
    assert "does not begin with `<!-- follows docs/a.md" in korean.behind(page)[0]
    korean.stamp(page)
    assert korean.behind(page) == [] and korean.headings_of(page.read_text("utf-8"))[1] == (2, "나")
    english.write_text(english.read_text("utf-8") + "\nMore.\n", "utf-8")
    assert [sentence[:27] for sentence in korean.behind(page)] == ["docs/a.md has changed since"]
    english.write_text("# A\n\n### B\n", "utf-8")
    korean.stamp(page)
    wrong = korean.behind(page)
    assert ["headings" in wrong[0], "pictures" in wrong[1], "code blocks" in wrong[2], len(wrong)] == [
        True,
        True,
        True,
        3,
    ]
    english.write_text("# A\n\nFrom 0.25 to +3.50, and 7.5 twice: 7.5.\n", "utf-8")
    page.write_text("# 가\n\n0.25에서 +3.05까지, 7.5.\n", "utf-8")
    korean.stamp(page)
    assert korean.behind(page) == [
        "docs/ko/a.md: its figures are not those of docs/a.md: it lacks [+3.50, 7.5] and adds [+3.05]"
    ]
    english.unlink()
    assert korean.behind(page) == ["docs/ko/a.md: there is no docs/a.md that it could follow"]


def test_a_number_that_a_korean_page_lacks_is_named(korean: Any) -> None:
    english = "Ten of [12](b34.md), 12 and 1,600 of 860 million.\n\n| A | 8 | 7.5 |\n\n```\n99\n```\n"
    assert korean.lost_numbers("12 중 10, 1,600과 12.\n\n| 가 | 8 | 7.5 |\n", english) == []
    assert korean.lost_numbers("12, 1600, 7.5\n\n| 가 | 8 | 7.6 |\n\n```\n12\n```\n", english) == [
        "it lacks the numbers 1,600, 12",
        "its row | 가 | 8 | 7.6 | lacks 7.5",
    ]
    assert korean.lost_numbers("12 12 1,600 8", english) == ["its tables have 0 rows in place of 1"]


def test_the_korean_glossary_names_the_same_words() -> None:
    def words_of(page: Path) -> list[list[str]]:
        rows = [line.replace(" (", "(").split(" | ") for line in page.read_text("utf-8").splitlines()]
        return [row[:2] for row in rows if len(row) == 3 and row[1] != "한국어"]

    words = words_of(DOCS / "glossary.md")
    assert len(words) > 80 and words_of(DOCS / "ko" / "glossary.md") == words


# --- the site's own way of links ----------------------------------------------------------------------------------


def test_links_are_led_to_where_files_lie_on_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    import build  # type: ignore[import-not-found]

    text = "[a](../CHANGELOG.md#x) [b](proof.md) [c](how-to/gpus.md) [d](../benchmarks/results/) [e](https://x.y/z)\n"
    text += "  - nested\n```\n  - [f](../CHANGELOG.md)\n```\n"
    led = build.rewritten("docs/results.md", text)
    assert led == (
        "[a](repository/CHANGELOG.md#x) [b](proof.md) [c](how-to/gpus.md) "
        "[d](repository/benchmarks/results/index.md) [e](https://x.y/z)\n"
        "    - nested\n```\n  - [f](../CHANGELOG.md)\n```\n"
    )
    assert build.rewritten("CHANGELOG.md", "[g](docs/proof.md#h)") == "[g](../proof.md#h)"
    both = build.in_both_languages(
        "docs/ko/how-to/own-data.md", '# 가\n\n```\n# 나\n```\n\n<a id="folders"></a>\n## 다\n'
    )
    assert both == (
        "# 가 {#your-own-data-in-each-layout}\n\n[English](../../how-to/own-data.md)\n\n"
        "```\n# 나\n```\n\n## 다 {#folders}\n"
    )
    assert build.in_both_languages("docs/index.md", "# A\n").endswith("# A\n\n[한국어](ko/index.md)\n")
    assert build.in_both_languages("CONTRIBUTING.md", "# A\n") == "# A\n"
    with pytest.raises(SystemExit, match="docs/results.md links to gone.md, which is not there"):
        list(build.targets("docs/results.md", "[i](gone.md)"))
