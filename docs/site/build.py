"""Build the site: `python docs/site/build.py` (`make site`), into site/, which is read without a network.

Pages in docs/ link to the rest of the repository (`../CHANGELOG.md`, `../benchmarks/results/`), which GitHub shows and
a site builder does not know. Whatever is linked to becomes a part of the site below `repository/`: Markdown as a page,
a folder as a page that lists it, all else as the file that it is. So the site is whole without a network. Zensical then
builds it, and refuses links and anchors that lead nowhere.

A page that is there in English and Korean links to the other below its title, and the Korean one's headings get the
anchors of the English ones.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from posixpath import join, normpath, relpath

from korean import english_of, headings_of, pages

ROOT = Path(__file__).parents[2]
SOURCE, SITE = ROOT / "build" / "site-source", ROOT / "site"
"""As mkdocs.yml names them."""
PLACE = "repository"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#|/)([^)#\s]+)(?=[)#])")
ANCHOR = re.compile(r'^<a id="[^"]+"></a>\n', re.M)
"""In front of a Korean heading: the English anchor, for GitHub, which makes anchors of the Korean words."""
FENCE = re.compile(r"^(```.*?^```|~~~.*?^~~~)", re.M | re.S)


def build() -> None:
    """Write site/ anew.

    Raises:
        SystemExit: a link or an anchor that leads nowhere.
    """
    prepare(SOURCE)
    shutil.rmtree(SITE, ignore_errors=True)
    built = subprocess.run([Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"], cwd=ROOT)
    if built.returncode:
        sys.exit("the site is not built; the builder says above why")
    print(f"open {SITE / 'index.html'}")


def prepare(folder: Path) -> None:
    """Write every page of docs/, and all that they link to, into an empty folder.

    Raises:
        SystemExit: a link leads to nothing, or out of the repository.
    """
    shutil.rmtree(folder, ignore_errors=True)
    here = ROOT / "docs"
    waiting = sorted(
        path.relative_to(ROOT).as_posix()
        for path in here.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".html")  # no page: how it is built
    )
    written = set(waiting)
    while waiting:
        name = waiting.pop()
        source, copy = ROOT / name, folder / place_of(name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            inside = [path for path in sorted(source.iterdir()) if path.is_file()]
            copy.write_text(f"# {name}\n\n" + "".join(f"- [{path.name}]({path.name})\n" for path in inside), "utf-8")
            linked = [f"{name}/{path.name}" for path in inside]
        elif source.suffix == ".md":
            text = source.read_text("utf-8")
            linked = list(targets(name, text))
            copy.write_text(in_both_languages(name, rewritten(name, text)), "utf-8")
        else:
            shutil.copyfile(source, copy)
            linked = []
        waiting += [target for target in dict.fromkeys(linked) if target not in written]
        written.update(linked)


def place_of(name: str) -> str:
    """Return where a file or folder of the repository lies on the site, as a path without a leading slash."""
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"{PLACE}/{name}" + ("/index.md" if (ROOT / name).is_dir() else "")


def targets(name: str, text: str) -> Iterator[str]:
    """Yield what a page links to, as paths from the root of the repository."""
    for found in LINK.finditer(FENCE.sub("", text)):
        target = normpath(join(name, "..", found[0]))
        if target.startswith("..") or not (ROOT / target).exists():
            sys.exit(f"{name} links to {found[0]}, which is not there")
        yield target


def rewritten(name: str, text: str) -> str:
    """Return a page with links to where files lie on the site, and with lists as Python-Markdown reads them.

    It wants lists and tables inside lists indented by four spaces; GitHub takes two. Code stays as it is.
    """

    def led(found: re.Match[str]) -> str:
        return relpath(place_of(normpath(join(name, "..", found[0]))), join(place_of(name), ".."))

    parts = FENCE.split(text)  # odd ones are code
    for place in range(0, len(parts), 2):
        parts[place] = re.sub(r"^ {2,3}(?=[-*|] ?)", "    ", LINK.sub(led, parts[place]), flags=re.M)
    return "".join(parts)


def in_both_languages(name: str, text: str) -> str:
    """Return a page with a link to itself in the other language, and a Korean one with the English anchors."""
    pairs = {page: english_of(page) for page in pages()}
    page, others = ROOT / name, {english: korean for korean, english in pairs.items()}
    if page not in pairs and page not in others:
        return text
    other, words = (pairs[page], "English") if page in pairs else (others[page], "한국어")
    parts = FENCE.split(text)  # odd ones are code
    if page in pairs:
        anchors = iter(anchor for _, anchor in anchors_of(other.read_text("utf-8")))
        for place in range(0, len(parts), 2):
            parts[place] = re.sub(
                r"^#+ .+$",
                lambda found: f"{found[0]} {{#{next(anchors)}}}",
                ANCHOR.sub("", parts[place]),
                flags=re.M,
            )
    led = relpath(place_of(other.relative_to(ROOT).as_posix()), join(place_of(name), ".."))
    return re.sub(r"^(# .+)$", rf"\1\n\n[{words}]({led})", "".join(parts), count=1, flags=re.M)


def anchors_of(text: str) -> list[tuple[str, str]]:
    """Return (words, anchor) of each heading of a page, as the builder makes anchors of English words."""
    made: list[tuple[str, str]] = []
    for _, words in headings_of(text):
        plain = re.sub(r"[^\w\- ]", "", words.replace("`", "")).strip().lower().replace(" ", "-")
        again = sum(anchor == plain for _, anchor in made)
        made.append((words, f"{plain}_{again}" if again else plain))
    return made


if __name__ == "__main__":
    build()
