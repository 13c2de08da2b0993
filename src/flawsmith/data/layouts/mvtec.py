"""mvtec: root/<product>/{train/good, test/good, test/<defect type>, ground_truth/<defect type>/NNN_mask.png}."""

from __future__ import annotations

from flawsmith.config import DataConfig, nfc
from flawsmith.data.layouts.mask_names import match, names_below
from flawsmith.data.layouts.reading import LeftOut, Reading, orphans, unclear
from flawsmith.data.layouts.tree import Tree, below, join, last_part
from flawsmith.errors import DataError
from flawsmith.types import Example

EXPECTED = "mvtec expects root/<product>/train/good, test/<defect type> and ground_truth/<defect type>"
MASKS = "draw ground_truth/<defect type>/<name>_mask.png for each, or move it away"
_TRAIN = "move defects to test/<defect type> and their masks to ground_truth/<defect type>"
_LABELS = "give each the name of its photograph, as ground_truth/<defect type>/<name>_mask.png"


def read_mvtec(data: DataConfig, tree: Tree) -> Reading:
    """Read MVTec AD's layout; the folders of a type may hold folders, and several masks of one picture are united."""
    homes = [""] if any(tree.is_folder(name) for name in ("train", "test")) else list(tree.folders[""])
    homes = [home for home in homes if any(tree.is_folder(join(home, split)) for split in ("train", "test"))]
    if not homes:
        raise DataError(f"{data.root}: no product folder with train/ and test/ found; {EXPECTED}")
    normals = {nfc(name) for name in data.normal or ["good"]}
    names: set[str] = set()
    examples: list[Example] = []
    normal_masks: dict[str, tuple[str, ...]] = {}
    left_out: list[LeftOut] = []
    of_the_absent: set[str] = set()
    for home in homes:
        product = home or data.product or tree.name
        photographs: dict[str, dict[str, str]] = {}  # type -> {path below its folder, without suffix: id}
        split_of: dict[str, str] = {}
        for split in ("train", "test"):
            for folder in tree.folders.get(join(home, split), ()):
                name = nfc(last_part(folder))
                names.add(name)
                pictures = tree.pictures_below(folder)
                if split == "train" and name not in normals:
                    left_out.append(LeftOut("train/ holds normal parts only", tree.here(pictures), "error", _TRAIN))
                    continue
                split_of |= dict.fromkeys(pictures, split)
                if split == "test":
                    photographs.setdefault(name, {}).update(names_below(folder, pictures))
        masks: dict[str, tuple[str, ...]] = {}
        labels: dict[str, list[tuple[str, str]]] = {}
        for folder in tree.folders.get(join(home, "ground_truth"), ()):
            files = [(below(folder, file), file) for file in tree.pictures_below(folder)]
            labels.setdefault(nfc(last_part(folder)), []).extend(files)
        for name, files in labels.items():
            matches = match(photographs.get(name, {}), files)
            masks |= matches.masks
            left_out += [*orphans(tree.here(matches.orphans), _LABELS), *unclear(tree, matches)]
        for file, split in split_of.items():
            label = tree.here(masks.get(file, ()))
            if file in tree.gone:
                of_the_absent.update(label)
                continue
            name = nfc(below(join(home, split), file).partition("/")[0])
            normal = name in normals
            if normal and label:
                normal_masks[file] = label
            paths = () if normal else tuple(map(tree.path, label))
            examples.append(Example(file, tree.path(file), product, None if normal else name, paths, split))
    tree.require_known("data.normal", data.normal, names)
    return Reading(tuple(examples), normal_masks, (), frozenset(of_the_absent), tuple(left_out))
