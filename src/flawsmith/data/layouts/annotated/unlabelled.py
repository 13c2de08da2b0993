"""Pictures that no labelling tool tells of: normal parts if `data.normal` says so, and never by a guess."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from flawsmith.config import DataConfig, nfc
from flawsmith.data.layouts.mask_names import bases, in_mask_folder, of_a_tool
from flawsmith.data.layouts.reading import Gathering
from flawsmith.data.layouts.tree import TOP, Tree, is_picture, without_suffix
from flawsmith.errors import DataError

IF_NORMAL = 'if they are normal parts, set data.normal = ["."]'
"""What would be right, where pictures have no label; half a sentence."""


_NORMAL = frozenset(
    (
        "good",
        "ok",
        "okay",
        "normal",
        "normals",
        "free",
        "pass",
        "passed",
        "clean",
        "golden",
        "sound",
        "intact",
        "perfect",
    )
    + ("defectfree", "nodefect", "nodefects", "정상", "양품", "무결함")
)
"""Words for normal parts in names of folders, and among choices."""
_NOT = frozenset(("no", "not", "non", "un", "without", "ng", "nok", "bad"))


class Unlabelled:
    """Tells which pictures without a label are normal parts.

    A folder that `data.normal` names holds normal parts alone. `.` is the folder of photographs itself: all of its
    pictures without a label are normal, wherever they lie, and the others are what their labels say.

    Args:
        data: The settings; of them `normal` and `product` count.
        tree: The files below the root.

    Raises:
        DataError: `data.normal` names a folder that is not there.
    """

    def __init__(self, data: DataConfig, tree: Tree) -> None:
        folders = {nfc(part) for folder in tree.folders for part in folder.split("/") if part}
        tree.require_known("data.normal", data.normal, {*folders, TOP})
        self._tree, self._product = tree, data.product or tree.name
        self._folders = {nfc(name) for name in data.normal} - {TOP}
        self._everywhere = TOP in data.normal
        self._stems = Counter(without_suffix(file) for file in tree.everything() if is_picture(file))

    def in_normal_folder(self, file: str) -> bool:
        """Return whether a picture lies in a folder that `data.normal` names."""
        return bool(self._folders & set(nfc(file).split("/")[:-1]))

    def is_normal(self, file: str) -> bool:
        """Return whether `data.normal` says of a picture without a label that it is a normal part."""
        return self._everywhere or self.in_normal_folder(file)

    def require_unmarked(self, where: str, file: str, defects: Iterable[str]) -> None:
        """Refuse damage in a folder that `data.normal` names.

        Args:
            where: The annotation file, and which of its pictures; for the sentence.
            file: The picture.
            defects: What is marked on it.

        Raises:
            DataError: something is.
        """
        if (marked := list(defects)) and self.in_normal_folder(file):
            raise DataError(f"{where}: marks {', '.join(marked)}, but its folder is named in data.normal")

    def take(
        self, gathering: Gathering, files: Iterable[str], split_of: Callable[[str], str] = lambda file: ""
    ) -> list[str]:
        """Take in those pictures without a label that are normal parts; return those of which nothing is said.

        What may be a mask by its name is none of them, unless its folder is named; it is left out, as an error.

        Args:
            gathering: Gets the normal parts, and what may be a mask.
            files: The pictures without a label.
            split_of: The split that the folders of a picture say.
        """
        unsaid: list[str] = []
        masks: list[str] = []
        for file in self._tree.here(files):
            if not self.is_normal(file):
                unsaid.append(file)
            elif not self.in_normal_folder(file) and self._may_be_mask(file):
                masks.append(file)
            else:
                gathering.take_marked(file, [], self._product, split_of(file))
        gathering.leave_out("by their names they may be masks", masks, "error", "name them in data.exclude")
        return unsaid

    def _may_be_mask(self, file: str) -> bool:
        stem = without_suffix(file)
        named = any(name in self._stems for _, name in bases(file) if name != stem)
        return in_mask_folder(nfc(file)) or of_a_tool(file) or named or self._stems[stem] > 1


def sounds_normal(name: str) -> bool:
    """Tell whether a folder is called after normal parts.

    >>> [name for name in ("MT_Free", "OK", "no_defect", "not_good", "NG", "book") if sounds_normal(name)]
    ['MT_Free', 'OK', 'no_defect']
    """
    words = [word for word in re.split(r"[\W_\d]+", name.casefold()) if word]
    if _NOT & set(words):
        return any(word.startswith(("defect", "anomal", "flaw", "damage")) for word in words)
    return bool(_NORMAL & set(words))
