"""Names of files and folders that every system takes, and that tools read: printable ASCII, unequal in any case."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from anyascii import anyascii

from flawsmith.config import nfc
from flawsmith.files import digest

_LONGEST_NAME = 60
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def safe_name(name: str, taken: Iterable[str] = ()) -> str:
    """Return a folder name of printable ASCII that every file system takes and none of `taken` equals.

    Latin letters lose their accents; a name with letters of another script is transliterated.

    >>> safe_name("Öl/Fett fleck")
    'Ol_Fett_fleck'
    >>> safe_name("찍힘")
    'JjigHim'
    >>> safe_name("Crack", ["crack"])
    'Crack-2'
    """
    latin = "" if _other_script(name) else _plain(unicodedata.normalize("NFKD", name))
    plain = latin or _plain(anyascii(nfc(name))) or "unnamed"
    if plain.lower().split(".")[0] in _RESERVED:
        plain += "_"
    used = {other.lower() for other in taken}  # some file systems do not tell upper case from lower
    unique, number = plain, 2
    while unique.lower() in used:
        unique, number = f"{plain}-{number}", number + 1
    return unique


def folder_names(names: Iterable[str], reserved: Iterable[str]) -> dict[str, str]:
    """Return the folder name of each name, so that no two are equal and none is reserved.

    A transliterated name does not depend on the order: two that read alike both end with letters drawn from the name.
    """
    names, reserved = list(dict.fromkeys(names)), list(reserved)
    made: dict[str, str] = {}
    for name in names:
        if not _other_script(name):
            made[name] = safe_name(name, [*made.values(), *reserved])
    others = {name: safe_name(name) for name in sorted(names) if name not in made}
    alike = Counter(plain.lower() for plain in (*others.values(), *made.values(), *reserved))
    for name, plain in others.items():
        ending = f"-{digest(nfc(name))[:4]}" if alike[plain.lower()] > 1 else ""
        made[name] = safe_name(plain[: _LONGEST_NAME - len(ending)] + ending, [*made.values(), *reserved])
    return made


def _plain(text: str) -> str:
    """Drop what is not ASCII, and what some file system does not take."""
    text = text.encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("._-")[:_LONGEST_NAME]


def _other_script(name: str) -> bool:
    """Tell whether a name has a letter or digit that is not Latin and stands for no ASCII character."""
    return any(
        letter.isalnum()
        and not unicodedata.normalize("NFKD", letter).encode("ascii", "ignore")
        and "LATIN" not in unicodedata.name(letter, "")
        for letter in nfc(name)
    )
