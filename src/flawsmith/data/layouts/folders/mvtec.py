"""mvtec: root/<product>/{train/good, test/good, test/<defect type>, ground_truth/<defect type>/NNN_mask.png}."""

from __future__ import annotations

from collections.abc import Sequence

from flawsmith.config import DataConfig, nfc
from flawsmith.data.layouts.mask_names import in_mask_folder, match, names_below
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import Tree, below, is_picture, join, last_part
from flawsmith.errors import DataError

EXPECTED = "mvtec expects root/<product>/train/good, test/<defect type> and ground_truth/<defect type>"
MASKS = (
    "draw ground_truth/<defect type>/<name>_mask.png for each, move it away, or name its folder in data.normal where "
    "its parts are normal"
)
_SPLITS = ("train", "test")
_FOLDERS = {"train": "train", "test": "test", "test_public": "test"}
"""Folder of a product -> its split; MVTec AD 2 calls the test test_public, and has ground_truth in it."""
_VALIDATION = "move them to train/good to learn from them"
_FLAT = "move normal parts to train/good"
_TRAIN = (
    "move defects to test/<defect type> and their masks to ground_truth/<defect type>, or name the folder in "
    "data.normal where its parts are normal"
)
_LABELS = "give each the name of its photograph, as ground_truth/<defect type>/<name>_mask.png"


def read_mvtec(data: DataConfig, tree: Tree) -> Reading:
    """Read MVTec AD's layout; the folders of a type may hold folders, and several masks of one picture are united."""
    homes = [""] if any(tree.is_folder(name) for name in _SPLITS) else list(tree.folders[""])
    homes = [home for home in homes if any(tree.is_folder(join(home, split)) for split in _SPLITS)]
    if not homes:
        raise DataError(f"{data.root}: no product folder with train/ and test/ found; {EXPECTED}{_nearly(tree)}")
    normals = {nfc(name) for name in data.normal or ["good"]}
    names: set[str] = set()
    gathering = Gathering(tree, _LABELS)
    for home in homes:
        product = home or data.product or tree.name
        flat = [file for file in tree.files.get(join(home, "train"), ()) if is_picture(file)]
        gathering.leave_out("they lie in train/ itself", tree.here(flat), "error", _FLAT)
        photographs: dict[str, dict[str, str]] = {}  # type -> {path below its folder, without suffix: id}
        folder_of: dict[str, str] = {}
        masks: dict[str, tuple[str, ...]] = {}
        for split, kind in _FOLDERS.items():
            for folder in tree.folders.get(join(home, split), ()):
                name = nfc(last_part(folder))
                if split == "test_public" and name == "ground_truth":
                    continue
                names.add(name)
                pictures = tree.pictures_below(folder)
                if kind == "train" and name not in normals:
                    gathering.leave_out("train/ holds normal parts only", tree.here(pictures), "error", _TRAIN)
                    continue
                apart, inside = _told_apart(folder, pictures)
                matches = match(names_below(folder, apart), inside, tree.gone)
                if len(matches.orphans) < len(inside):  # MVTec 3D-AD has them so; else it is a lot called `label`
                    pictures = apart
                    masks |= matches.masks
                    gathering.leave(matches)
                folder_of |= dict.fromkeys(pictures, split)
                # Of normal parts in train, some sets hold empty masks too; those in test come later and count.
                photographs.setdefault(name, {}).update(names_below(folder, pictures))
        labels: dict[str, list[tuple[str, str]]] = {}
        truths = join(home, "ground_truth"), join(home, "test_public", "ground_truth")
        for folder in (one for truth in truths for one in tree.folders.get(truth, ())):
            files = [(below(folder, file), file) for file in tree.pictures_below(folder)]
            labels.setdefault(nfc(last_part(folder)), []).extend(files)
        for name, files in labels.items():
            matches = match(photographs.get(name, {}), files, tree.gone)
            for photograph in sorted(masks.keys() & matches.masks.keys()):
                both = (*masks[photograph], *matches.masks[photograph])
                gathering.leave_out(f"each could be the mask of {photograph}", both, "error", "keep one of them")
            masks |= matches.masks
            gathering.leave(matches)
        for folder in tree.folders.get(join(home, "validation"), ()):
            if nfc(last_part(folder)) in normals:
                unused = tree.here(tree.pictures_below(folder))
                gathering.leave_out("validation/ is not used", unused, "warning", _VALIDATION)
        for file, split in folder_of.items():
            name = nfc(below(join(home, split), file).partition("/")[0])
            gathering.take(file, masks.get(file, ()), product, None if name in normals else name, _FOLDERS[split])
    tree.require_known("data.normal", data.normal, names)
    return gathering.reading()


def _told_apart(folder: str, pictures: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Tell photographs from masks in a folder `gt` or `masks` among them: (photographs, (path below, mask))."""
    inside = [file for file in pictures if in_mask_folder(below(folder, file))]
    if len(inside) == len(pictures):
        return list(pictures), []
    apart = set(inside)
    return [file for file in pictures if file not in apart], [(below(folder, file), file) for file in inside]


def _nearly(tree: Tree) -> str:
    """Return a hint where folders of these names lie deeper, or are written in another case; "" = there are none."""
    for folder in sorted(tree.folders, key=lambda folder: (folder.count("/"), folder)):
        home, _, name = folder.rpartition("/")
        if name in _SPLITS:
            return f" (there is {folder}: set data.root to {tree.path(home).parent})"
        if name.lower() in _SPLITS:
            return f" (there is {folder}: write the names in lower case, or use the layout pattern)"
    return ""
