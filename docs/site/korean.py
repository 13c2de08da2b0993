"""Korean pages follow English ones: which have fallen behind, and the stamp that says which text a page follows.

    python docs/site/korean.py                     what is behind, and why
    python docs/site/korean.py docs/ko/index.md    stamp pages anew, once their text says what the English says now
    python docs/site/korean.py --links             lead links to English pages to their Korean ones, if any

A page in docs/ko/ begins with the path of its English page and a digest of that page's text. When the English moves,
the digest does not fit any more, and `tests/test_documentation.py` names the page. Headings, pictures and code blocks
have to be as many and in the order of the English page, so on the site its headings have the English anchors. Figures
with a decimal point are those of the English page, each as often; whole numbers may be more, for Korean writes 10 where
English says ten. And a row of a table has the figures of the English row.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from os.path import relpath
from pathlib import Path
from posixpath import basename

DOCS = Path(__file__).resolve().parents[1]
KOREAN = DOCS / "ko"
README = DOCS.parent / "README.ko.md"
STAMP = re.compile(r"\A<!-- follows docs/(\S+\.md) ([0-9a-f]{12}) -->\n\n")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
HEADING = re.compile(r"^(#+) (.+)$", re.M)
FIGURE = re.compile(r"[-+]?\d+\.\d+")
LINK = re.compile(r"(?<=\]\()[^)#:\s]+\.md(?=[)#])")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
TARGET = re.compile(r"(?<=\])\([^)]*\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?![.,]?\d| (?:million|billion))")  # in Korean 860 million counts in 10,000s


def pages() -> list[Path]:
    """Return the Korean pages."""
    return sorted(KOREAN.rglob("*.md"))


def english_of(page: Path) -> Path:
    """Return the English page that a Korean one follows: the one of its name."""
    return DOCS / page.relative_to(KOREAN)


def digest_of(page: Path) -> str:
    """Return the digest of a page's text, 12 hexadecimal digits."""
    return hashlib.sha256(page.read_text("utf-8").encode()).hexdigest()[:12]


def headings_of(text: str) -> list[tuple[int, str]]:
    """Return (level, words) of each heading; what stands in code is none."""
    return [(len(marks), words) for marks, words in HEADING.findall(FENCE.sub("", text))]


def lost_numbers(text: str, original: str) -> list[str]:
    """Return what whole numbers, and what of the English tables' rows, a Korean text lacks, a sentence each."""
    plain, wanted = (TARGET.sub("", FENCE.sub("", STAMP.sub("", one))) for one in (text, original))
    whole = [Counter(one for one in NUMBER.findall(both) if "." not in one) for both in (wanted, plain)]
    lost = sorted((whole[0] - whole[1]).elements())
    wrong = [f"it lacks the numbers {', '.join(lost)}"] if lost else []
    rows, wanted_rows = ([line for line in one.splitlines() if line.startswith("|")] for one in (plain, wanted))
    if len(rows) != len(wanted_rows):
        return [*wrong, f"its tables have {len(rows)} rows in place of {len(wanted_rows)}"]
    for row, wanted_row in zip(rows, wanted_rows, strict=True):
        if absent := sorted(set(NUMBER.findall(wanted_row)) - set(NUMBER.findall(row))):
            wrong.append(f"its row {row} lacks {', '.join(absent)}")
    return wrong


def behind(page: Path) -> list[str]:
    """Return what of a Korean page does not fit its English one, a sentence each; [] = nothing."""
    name, english = page.relative_to(DOCS.parent).as_posix(), english_of(page)
    english_name = english.relative_to(DOCS.parent).as_posix()
    if not english.is_file():
        return [f"{name}: there is no {english_name} that it could follow"]
    text, original = page.read_text("utf-8"), english.read_text("utf-8")
    stamp, wrong = STAMP.match(text), []
    if stamp is None or stamp[1] != english_name.removeprefix("docs/"):
        wrong.append(f"{name}: does not begin with `<!-- follows {english_name} ... -->`")
    elif stamp[2] != digest_of(english):
        wrong.append(f"{english_name} has changed since {name} was written after it; mend that, then stamp it")
    for what, here, there in (
        ("headings", *([level for level, _ in headings_of(one)] for one in (text, original))),
        ("pictures", *([basename(one) for one in PICTURE.findall(both)] for both in (text, original))),
        ("code blocks", *([kind for kind, _ in FENCE.findall(one)] for one in (text, original))),
    ):
        if here != there:
            wrong.append(f"{name}: its {what} are not those of {english_name}: {here} in place of {there}")
    here, there = (Counter(FIGURE.findall(FENCE.sub("", one))) for one in (text, original))
    if here != there:
        lacking, added = (", ".join((one - other).elements()) for one, other in ((there, here), (here, there)))
        wrong.append(f"{name}: its figures are not those of {english_name}: it lacks [{lacking}] and adds [{added}]")
    return wrong + [f"{name}: {sentence}" for sentence in lost_numbers(text, original)]


def relinked(page: Path) -> str:
    """Return a Korean page, also README.ko.md, with links to Korean pages in place of their English ones.

    A link to its own English page stays.
    """

    def led(link: re.Match[str]) -> str:
        target = (page.parent / link[0]).resolve()
        there = KOREAN / target.relative_to(DOCS) if target.is_relative_to(DOCS) else page
        return Path(relpath(there, page.parent)).as_posix() if there.is_file() and there != page else link[0]

    return LINK.sub(led, page.read_text("utf-8"))


def stamp(page: Path) -> None:
    """Write which English text a Korean page follows into its first line."""
    name = english_of(page).relative_to(DOCS).as_posix()
    text = STAMP.sub("", page.read_text("utf-8"))
    page.write_text(f"<!-- follows docs/{name} {digest_of(english_of(page))} -->\n\n{text}", "utf-8")


def main(asked: list[str]) -> None:
    if asked == ["--links"]:
        for page in (*pages(), README):
            page.write_text(relinked(page), "utf-8")
        asked = []
    for name in asked:
        page = Path(name).resolve()
        if page not in pages() or not english_of(page).is_file():
            sys.exit(f"{name} is no Korean page of an English one; there are {', '.join(map(str, _names()))}")
        stamp(page)
    wrong = [sentence for page in pages() for sentence in behind(page)]
    print("\n".join(wrong) or f"{len(pages())} Korean pages follow their English ones")
    sys.exit(bool(wrong))


def _names() -> list[str]:
    return [page.relative_to(DOCS.parent).as_posix() for page in pages()]


if __name__ == "__main__":
    main(sys.argv[1:])
