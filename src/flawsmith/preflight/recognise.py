"""A folder of photographs -> the configuration that fits it: `flawsmith new --from FOLDER`.

Every layout is tried on the list of files; no photograph is opened. The one that understands all of it and finds the
most defects with masks is taken. What no list can tell, as which folder holds normal parts, or whether pictures without
a label do, is asked in one sentence.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from flawsmith.config import Config, DataConfig, GeneratorConfig, commented_toml, nfc
from flawsmith.data.layouts import LAYOUTS, Survey, survey
from flawsmith.data.layouts.annotated.unlabelled import sounds_normal
from flawsmith.data.layouts.tree import TOP, Tree, last_part, list_tree
from flawsmith.errors import Answer, DataError, FlawsmithError, first_few

_SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation"))
"""Folders that hold both sorts of parts; none of them is taken for the normal ones by what it lacks."""
_ANNOTATED = ("coco", "labelme", "yolo", "label_studio", "lookout")
"""Layouts in which a labelling tool's files say what is damaged."""
OPTION, SETTING = "--normal", "data.normal"
"""What names the folders of normal parts: of `flawsmith new --from`, and everywhere else."""
_SORT = "put those of normal parts into a folder `good`, and those of each defect type into one of its name"
_MOST_FOLDERS = 8
"""So many folders are tried as those of normal parts, two or three together."""
SHOTLESS = "rendered"
"""The generator of a folder without defects."""
_KEYS = (
    *("seed", "data.root", "data.layout", "data.normal", "data.product", "data.shots"),
    *("generator.name", "generate.count", "export.formats"),
)
"""What the file says; all other settings keep their defaults."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """How a folder is to be read."""

    data: DataConfig
    survey: Survey
    others: tuple[str, ...]
    """Layouts that understand all of it too, but find less."""

    def toml(self) -> str:
        """Return a configuration file with what was understood in its first lines."""
        keys = [key for key in _KEYS if key not in ("data.normal", "data.product") or self._reads(key)]
        config = Config(data=self.data)
        if not self.data.shots:
            config = config.model_copy(update={"generator": GeneratorConfig(name=SHOTLESS)})
        return commented_toml(config, note=self._summary(), keys=keys)

    def _reads(self, key: str) -> bool:
        return self.data.layout == "pairs" or (key == "data.normal" and bool(self.data.normal))

    def _summary(self) -> str:
        """Return what was understood, as lines of a comment."""
        first = (
            f"written by `flawsmith new --from`, which understood {self.data.root} as the layout {self.data.layout}:"
        )
        last = "`flawsmith check` says more. Settings that are not here: `flawsmith new` prints all of them."
        lines = []
        products = Counter(example.product for example in self.survey.examples if example.defect is None)
        for product, normal in products.items():
            defects = Counter(e.defect for e in self.survey.examples if e.product == product and e.defect is not None)
            counts = ", ".join(f"{defect} {number}" for defect, number in defects.items()) or "no defects"
            lines.append(f"{product}: {normal} normal; {counts}")
        lines += self.survey.warnings
        if not self.data.shots:
            lines.append(
                f"There is no defect photograph, so {SHOTLESS} draws damage; docs/how-to/zero-shots.md says more."
            )
        if self.others:
            lines.append(f"It could also be read as {', '.join(self.others)}.")
        return "\n# ".join([first, *(f"  {line}" for text in lines for line in text.splitlines()), last])


def recognise(root: Path, normal: Sequence[str] = (), *, by: str = OPTION) -> Recognised:
    """Find out how a folder is laid out.

    Args:
        root: The folder of photographs.
        normal: Names of the folders of normal parts, where somebody said so, "." for the root itself; () = to be found
            out.
        by: What says so, for the sentences that ask for it: the option of `flawsmith new`, or SETTING.

    Raises:
        DataError: the folder is missing, or one of `normal` in it; no layout understands it, or it cannot be told which
            parts are normal; where it is only that, with the setting that would say so.
    """
    tree = list_tree(DataConfig(root=root), remedy="give --from the folder of your photographs")
    folders = {nfc(part) for folder in tree.folders for part in folder.split("/") if part}
    tree.require_known(by, normal, {*folders, TOP})
    understood, refused = _understood(root, tree, tuple(normal), {}, by)
    if not understood:  # perhaps because there are no defects at all
        understood, misread = _understood(root, tree, tuple(normal), {"shots": 0}, by)
        if TOP in normal and any(misread.get(layout) for layout in _ANNOTATED):
            # What a label file marks is not normal, although nobody can read it.
            understood, refused = [], {layout: misread[layout] for layout in _ANNOTATED if layout in misread}
    if not understood:
        question = (
            "" if TOP in normal or not tree.pictures_below("") else _whether_normal(root, tree, normal, refused, by)
        )
        if question:
            raise DataError(question, answers=(Answer(SETTING, [*normal, TOP]),))
        unmasked = [] if normal else _unmasked(root, tree)
        answers = [Answer(SETTING, unmasked)] if unmasked else []
        raise DataError("\n".join([_unread(root, tree, refused, by), *_if_normal(unmasked, by)]), answers=answers)
    most = max(_masked(surveyed) for _, surveyed in understood)
    best = [(data, surveyed) for data, surveyed in understood if _masked(surveyed) == most]
    data, surveyed = best[0]
    rivals = [one.normal[0] for one, _ in best if one.layout == data.layout and len(one.normal) == 1]
    if len(rivals) > 1:
        one = f"{by} {rivals[0]} (again and again for several)" if by == OPTION else f'{by} = ["{rivals[0]}"]'
        raise DataError(
            f"{root}: which folder holds normal parts cannot be told from the names: {', '.join(rivals)}; say so with "
            f"{one}",
            answers=[Answer(SETTING, [name]) for name in rivals],
        )
    others = dict.fromkeys(one.layout for one, _ in understood if one.layout != data.layout)
    return Recognised(data, surveyed, tuple(others))


def _understood(
    root: Path, tree: Tree, normal: tuple[str, ...], settings: dict[str, Any], by: str
) -> tuple[list[tuple[DataConfig, Survey]], dict[str, list[str]]]:
    """Return the ways of reading a folder that understand all of it, and why each layout that does not is refused."""
    understood: list[tuple[DataConfig, Survey]] = []
    refused: dict[str, list[str]] = {}
    for candidate in _candidates(root, tree, normal):
        data = candidate.model_copy(update=settings)
        try:
            surveyed = survey(data, tree)
        except FlawsmithError as error:
            sentence = str(error)
            refused.setdefault(data.layout, [] if " expects " in sentence else sentence.splitlines())
            continue
        guessed = bool(data.normal) and not normal and not any(map(sounds_normal, data.normal))
        if surveyed.errors:
            # Who finds nothing of its own there has nothing to say about it.
            refused.setdefault(data.layout, surveyed.errors if surveyed.examples else [])
        elif guessed and (surveyed.normal_masks or settings):
            refused.setdefault(data.layout, [f"{root}: no folder is called after normal parts; name it with {by}"])
        else:
            understood.append((data, surveyed))
    return understood, refused


def _candidates(root: Path, tree: Tree, normal: tuple[str, ...]) -> Iterator[DataConfig]:
    """Yield every way to read a folder that is worth a try, the likeliest of each layout first."""
    folders = [folder for folder in tree.folders[""] if tree.pictures_below(folder)]
    by_name = normal or tuple(folder for folder in folders if sounds_normal(folder))
    for layout in LAYOUTS:
        if layout == "pattern":  # its templates are the user's
            continue
        if layout == "mvtec":
            folders_of_normals = normal or _normal_in_train(tree)
            named = [] if folders_of_normals == ("good",) else list(folders_of_normals)
            yield DataConfig(root=root, layout=layout, normal=named)
            continue
        if layout not in ("pairs", *_ANNOTATED):
            yield DataConfig(root=root, layout=layout)
            continue
        if layout in _ANNOTATED and not normal:
            yield DataConfig(root=root, layout=layout)
            within = {last_part(folder) for folder in tree.folders if folder and sounds_normal(last_part(folder))}
            if within and layout == "labelme":
                yield DataConfig(root=root, layout=layout, normal=sorted(within))
        elif by_name:
            yield DataConfig(root=root, layout=layout, normal=list(by_name))
        else:
            mixed = [folder for folder in folders if folder.casefold() in _SPLITS]
            yield from (DataConfig(root=root, layout=layout, normal=[one]) for one in folders if one not in mixed)


def _normal_in_train(tree: Tree) -> tuple[str, ...]:
    """Return the names of folders right below a train/ that are called after normal parts: BTAD's is train/ok."""
    above = {folder: last_part(folder.rpartition("/")[0]) for folder in tree.folders}
    names = {nfc(last_part(folder)) for folder, train in above.items() if train == "train"}
    return tuple(sorted(name for name in names if sounds_normal(name)))


def _masked(surveyed: Survey) -> int:
    """Return how many defects have masks."""
    return sum(example.defect is not None and bool(example.masks) for example in surveyed.examples)


def _unread(root: Path, tree: Tree, refused: dict[str, list[str]], by: str) -> str:
    """Return what to say when no layout understands a folder: what each that is near it misses."""
    pictures = tree.pictures_below("")
    if not pictures:
        return f"{root}: no pictures there (PNG, JPEG, TIFF, BMP, WebP); give the folder that holds your photographs"
    near = {layout: errors for layout, errors in refused.items() if errors}
    advice = f'name the folders of normal parts with {by}, or set data.layout = "pattern" (docs/data.md)'
    if not near and not any("/" in picture for picture in pictures):
        return f"{root}: {len(pictures)} pictures in no folder; {_SORT}"
    if not near:
        return f"{root}: {len(pictures)} pictures, but it looks like no layout ({', '.join(refused)}); {advice}"
    reasons = "\n".join(f"  as {layout}: {first_few(errors, 2)}" for layout, errors in near.items())
    count = f"{len(pictures)} pictures, but no layout understands all of it"
    return f"{root}: {count}:\n{reasons}\n  Put right what one of them says, {advice}"


def _unmasked(root: Path, tree: Tree) -> list[str]:
    """Return the folders, two or three, with which as those of normal parts every other picture has a mask; [] = there
    are none, or too many folders to tell."""
    folders = [folder for folder in tree.folders[""] if tree.pictures_below(folder)]
    if len(folders) > _MOST_FOLDERS or any(folder.casefold() in _SPLITS for folder in folders):
        return []
    for number in (2, 3):
        for names in combinations(folders, number):
            reading = _readable(DataConfig(root=root, layout="pairs", normal=list(names)), tree)
            if reading and not reading.normal_masks and _masked(reading):
                return list(names)
    return []


def _if_normal(folders: Sequence[str], by: str) -> list[str]:
    """Return a line that says how to name folders as those of normal parts, if that is what they hold; [] = none."""
    if not folders:
        return []
    how = " ".join(f"{by} {folder}" for folder in folders) if by == OPTION else str(Answer(SETTING, list(folders)))
    return [f"  If all pictures in {', '.join(folders)} show normal parts: {how}"]


def _whether_normal(root: Path, tree: Tree, normal: Sequence[str], refused: dict[str, list[str]], by: str) -> str:
    """Return the question whether pictures that nothing is said of are normal parts; "" = more than that is unknown.

    The answer is a command or a setting, with which all would be understood.
    """
    if by == OPTION:
        command = ["flawsmith", "new", "--from", str(root)]
        command += [part for name in (*normal, TOP) for part in (OPTION, name)]
        answer = f"normal parts: `{shlex.join(command)}`"
    else:
        answer = f"normal parts, set {Answer(SETTING, [*normal, TOP])}"
    for layout in (one for one in _ANNOTATED if refused.get(one)):
        data = DataConfig(root=root, layout=layout, normal=list(normal))
        if reading := _readable(data.model_copy(update={"normal": [*normal, TOP]}), tree):
            known = {example.id for example in survey(data, tree).examples}
            bare = [example.id for example in reading.examples if example.id not in known]
            count = "1 picture has" if len(bare) == 1 else f"{len(bare)} pictures have"
            if layout == "labelme":
                return f"{root}: {count} no label file ({first_few(bare)}). If they are {answer}"
            return f"{root}: {count} no row in a label file ({first_few(bare)}). If they are {answer}"
    if any(refused.get(layout) for layout in _ANNOTATED):
        return ""
    names = [*(normal or filter(sounds_normal, tree.folders[""])), TOP]
    for shots in (DataConfig().shots, 0):
        if reading := _readable(DataConfig(root=root, layout="pairs", normal=names, shots=shots), tree):
            flat = [example.id for example in reading.examples if "/" not in example.id]
            return f"{root}: {len(flat)} pictures in no folder ({first_few(flat)}); {_SORT}. If these are {answer}"
    return ""


def _readable(data: DataConfig, tree: Tree) -> Survey | None:
    """Return what a layout makes of a folder; None = not all of it is understood."""
    with suppress(FlawsmithError):
        if not (surveyed := survey(data, tree)).errors:
            return surveyed
    return None
