"""Every file below the root, listed once: which are pictures, which lead nowhere, which `data.exclude` leaves out.

Ids are paths below the root, posix style, as they are written on disk; they are compared in Unicode's composed form
(NFC), because macOS writes the decomposed one, in which `가` is two characters.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from flawsmith.config import DataConfig, nfc
from flawsmith.data.images import SUFFIXES
from flawsmith.errors import DataError, RunError, first_few, nearest
from flawsmith.files import read_json
from flawsmith.paths import looked_in

WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
"""What stands for more than itself in a glob or a template, as a regular expression."""
TOP = "."
"""What `data.normal` calls the folder of photographs itself."""
_RUN = {"config.json", "manifest.json"}
"""Files of every run of flawsmith."""
_OF_SYSTEMS = frozenset(
    ("@eadir", "#recycle", "$recycle.bin", "__macosx", "system volume information", "lost+found", "thumbs.db")
)
"""Folders and files of network drives and operating systems, which hold previews and what was thrown away."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The files below a root. A folder is named by its id; "" is the root."""

    root: Path
    files: dict[str, tuple[str, ...]]
    """Folder -> the ids of the files directly in it, sorted; hidden ones are not among them."""
    folders: dict[str, tuple[str, ...]]
    """Folder -> the ids of the folders directly in it, sorted; hidden ones are not among them."""
    hidden: int
    """Files that are not shown, or lie in such folders: a name with a dot before it, or an operating system's."""
    dangling: frozenset[str]
    """Links that lead to nothing; they are among `files`."""
    loops: tuple[str, ...]
    """Folders that are links to a folder above them; what they hold is listed there."""
    runs: tuple[str, ...]
    """Folders that are runs of flawsmith; what they hold is not listed, for it is made of the other files."""
    excluded: frozenset[str]
    """Files that a glob of `data.exclude` fits."""
    gone: frozenset[str]
    """Files that are not to be read: those, and links to nothing."""

    @property
    def name(self) -> str:
        """The root folder's own name; what a product is called where nothing else says it."""
        return self.root.resolve().name or "part"

    def here(self, files: Iterable[str]) -> tuple[str, ...]:
        """Return those of some files that are to be read."""
        return tuple(file for file in files if file not in self.gone)

    def path(self, file: str) -> Path:
        """Return where a file lies."""
        return self.root / file

    def require_known(self, setting: str, names: Iterable[str], known: Iterable[str]) -> None:
        """Raise DataError if a setting names a folder or type that is not among those known."""
        known = list(known)
        for name in map(nfc, names):
            if name not in known and TOP in known and last_part(posix(name).rstrip("/")) in (self.name, "", TOP):
                raise DataError(f"{setting}: {self.root} holds no folder {name!r}; call the whole folder {TOP!r}")
            if name not in known:
                raise DataError(f"{setting}: {self.root} holds no {name!r}{nearest(name, known)}")

    def is_folder(self, folder: str) -> bool:
        return folder in self.folders

    def everything(self) -> Iterator[str]:
        """Yield the id of every file that is not hidden."""
        for names in self.files.values():
            yield from names

    def pictures_below(self, folder: str) -> list[str]:
        """Return the pictures below a folder at any depth, also those excluded; [] = there is no such folder."""
        if folder not in self.folders:
            return []
        pictures = [file for file in self.files[folder] if is_picture(file)]
        for inner in self.folders[folder]:
            pictures += self.pictures_below(inner)
        return pictures

    def same_named(self, folder: str, name: str) -> list[str]:
        """Return the folders directly in one that have a name, in whichever Unicode form each is written."""
        return [inner for inner in self.folders.get(folder, ()) if nfc(last_part(inner)) == nfc(name)]


def require_root(root: Path, remedy: str = "set data.root to your photographs") -> None:
    """Refuse a folder of photographs that is missing, or a file.

    Raises:
        DataError: says so; its second half is `remedy`.
    """
    if not root.exists():
        raise DataError(f"{root}: there is no such folder{looked_in(root)}; {remedy}")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; it must be the folder of photographs")


def list_tree(data: DataConfig, remedy: str = "set data.root to your photographs") -> Tree:
    """List the files below `data.root`, through linked folders too.

    Args:
        data: The settings; of them `root` and `exclude` count.
        remedy: What would be right where there is no such folder; a sentence's second half.

    Raises:
        DataError: the root is missing or a file; a folder cannot be listed; a name is not in UTF-8; a glob of
            `data.exclude` fits nothing.
    """
    root = data.root
    require_root(root, remedy)
    files: dict[str, tuple[str, ...]] = {}
    folders: dict[str, tuple[str, ...]] = {}
    dangling: set[str] = set()
    loops: list[str] = []
    runs: list[str] = []
    hidden = 0
    above: dict[str, frozenset[str]] = {}  # folder -> the real folders that lead to it
    closed: list[OSError] = []
    for here, inner, names in os.walk(root, followlinks=True, onerror=closed.append):
        folder = "" if here == str(root) else Path(here).relative_to(root).as_posix()
        real = os.path.realpath(here)
        led = above.get(folder.rpartition("/")[0], frozenset()) if folder else frozenset()
        if real in led:
            loops.append(folder)
            inner.clear()
            continue
        if folder and _is_run(here, names):
            runs.append(folder)
            inner.clear()
            continue
        above[folder] = led | {real}
        for name in filter(_is_hidden, inner):
            hidden += sum(len(names_below) for _, _, names_below in os.walk(os.path.join(here, name)))
        inner[:] = sorted(name for name in inner if not _is_hidden(name))
        shown = sorted(name for name in names if not _is_hidden(name))
        hidden += len(names) - len(shown)
        files[folder] = tuple(join(folder, name) for name in shown)
        folders[folder] = tuple(join(folder, name) for name in inner)
        dangling.update(join(folder, name) for name in shown if _leads_nowhere(os.path.join(here, name)))
    _require_open(root, closed)
    _require_names(root, files)
    folders = {folder: tuple(one for one in inner if one in files) for folder, inner in folders.items()}
    gone = frozenset(dangling)
    tree = Tree(root, files, folders, hidden, gone, tuple(loops), tuple(runs), frozenset(), gone)
    if not data.exclude:
        return tree
    excluded = _excluded(data, tree)
    return replace(tree, excluded=excluded, gone=gone | excluded)


def _require_open(root: Path, closed: Sequence[OSError]) -> None:
    """Refuse folders that cannot be listed: what they hold would be missing without a word.

    Raises:
        DataError: lists the first few.
    """
    if closed:
        names = [os.fsencode(error.filename or root).decode("utf-8", "backslashreplace") for error in closed]
        count = "1 folder" if len(names) == 1 else f"{len(names)} folders"
        raise DataError(
            f"{first_few(sorted(names))}: {count} cannot be listed ({closed[0].strerror}); mend the rights, or move "
            f"them out of {root}"
        )


def _require_names(root: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Refuse names that are not in UTF-8: no record could hold them.

    Raises:
        DataError: lists the first few.
    """
    wrong = [file.encode("utf-8", "surrogateescape") for names in files.values() for file in names if _is_odd(file)]
    if wrong:
        shown = first_few([str(name)[2:-1] for name in wrong])
        count = "1 name is" if len(wrong) == 1 else f"{len(wrong)} names are"
        raise DataError(f"{root}: {count} not in UTF-8: {shown}; rename, for instance with `convmv`")


def _is_odd(name: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in name)


def is_picture(file: str) -> bool:
    """Tell a picture by the suffix of its name."""
    return file.lower().endswith(SUFFIXES)


def last_part(file: str) -> str:
    """Return the name of a file or folder without the folders above it."""
    return file.rpartition("/")[2]


def without_suffix(file: str) -> str:
    """Return an id without its suffix, in composed Unicode: `a/b.x.png` -> `a/b.x`."""
    name = nfc(file)
    stem, dot, _ = name.rpartition(".")
    return stem if dot and "/" not in name[len(stem) :] else name


def below(folder: str, file: str) -> str:
    """Return the id of a file as seen from a folder above it."""
    return file[len(folder) + 1 :] if folder else file


def join(*parts: str) -> str:
    """Return an id of its parts; "" is the root."""
    return "/".join(part for part in parts if part)


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that counts: `2.png` before `10.png`.

    >>> sorted(["a10", "a2", "a02", "b", "a"], key=natural_key)
    ['a', 'a02', 'a2', 'a10', 'b']
    """
    parts = [part for part in re.split(r"(\d+)", nfc(text)) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], text


@lru_cache
def rule_of(glob: str) -> re.Pattern[str]:
    """Turn a glob into a rule for whole ids in composed Unicode; braces and brackets stand for themselves."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", posix(glob))
    return re.compile("".join(WILDCARDS.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)


def posix(template: str) -> str:
    """Return a glob or template with the separators and the Unicode form of ids."""
    return nfc(template.replace("\\", "/").removeprefix("./"))


def _excluded(data: DataConfig, tree: Tree) -> frozenset[str]:
    """Return the files that `data.exclude` leaves out.

    Raises:
        DataError: a glob fits no file; a sentence per glob, with the file whose id is nearest.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for file in tree.everything():
        by_name[nfc(file)].append(file)
    wrong: list[str] = []
    gone: set[str] = set()
    for glob in data.exclude:
        rule = rule_of(glob)
        fitting = [file for name, files in by_name.items() if rule.fullmatch(name) for file in files]
        gone.update(fitting)
        if not fitting:
            folder = glob.rstrip("/")
            pictures = (name for name in by_name if is_picture(name))
            near = "".join(f"; the nearest is {name!r}" for name in _nearest(nfc(glob), pictures))
            hint = f"; a whole folder is '{folder}/**'" if folder and tree.is_folder(folder) else ""
            wrong.append(f"data.exclude: {glob!r} fits no file below {data.root}{hint or near}")
    if wrong:
        raise DataError("\n".join(wrong))
    return frozenset(gone)


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, names, 1, 0.0)


def _is_run(folder: str, names: Iterable[str]) -> bool:
    """Return whether a folder is a run of flawsmith, by the files directly in it."""
    if not set(names) >= _RUN:
        return False
    with suppress(RunError):
        return "stages" in read_json(Path(folder, "manifest.json"))
    return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _OF_SYSTEMS


def _leads_nowhere(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)
