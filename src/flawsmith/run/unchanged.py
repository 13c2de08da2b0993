"""Are photographs, weights and made pictures still what they were? Told by content; size and times are only a shortcut.

Samples are painted on photographs and learned from shots. When these change afterwards, whatever is judged, proven or
exported would be of other pictures than it says; and so it would when somebody edits or cuts a sample. Each stage that
reads what an earlier one made asks here first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from flawsmith.errors import RunError
from flawsmith.files import digest, file_digest, file_state, read_json, reading, write_json
from flawsmith.run.dataset import GROUPS, Dataset, load_split, row_identity
from flawsmith.run.folder import Run
from flawsmith.run.records import Sample

_SHOWN = 3
_LEARNED = {"shots": "shots", "normals": "normal photographs"}
"""What training depends on, as its record names it -> in words."""


def require_as_learned(run: Run, data: Dataset | None = None) -> None:
    """Refuse to go on when shots or normal photographs are others than those that samples were made from.

    Args:
        run: The run.
        data: Its photographs, opened; None = as data.json has them.

    Raises:
        RunError: says which.
    """
    content = run.record("train").get("inputs", {}).get("content", {})
    known = {name: words for name, words in _LEARNED.items() if name in content}
    if data is None:
        path = run.path("data.json")
        rows = read_json(path)
        with reading(path):
            hashes = {name: digest([(row["id"], row_identity(row)) for row in rows[name]]) for name in known}
    else:
        hashes = {name: data.content(getattr(data.split, name)) for name in known}
    changed = [words for name, words in known.items() if content[name] != hashes[name]]
    if changed:
        raise RunError(
            f"{run.folder}: {' and '.join(changed)} are not those that its samples were made from; put them back, or "
            f"run `flawsmith train {run.folder}` and `flawsmith generate {run.folder}`, which make the samples anew"
        )


def changed_photographs(run: Run) -> list[str]:
    """Return the ids of photographs that are not what data.json says, or whose masks are not; all files are looked at.

    Raises:
        RunError: data.json is missing or damaged, or `data.root` is not there.
    """
    split, path = load_split(run), run.path("data.json")
    rows = read_json(path)
    changed = []
    with reading(path):
        for name in GROUPS:
            for row, example in zip(rows[name], getattr(split, name), strict=True):
                files = [example.image, *example.masks]
                same = row.get("files") == [file_state(file) for file in files]
                if not same and row.get("hash") not in (None, digest([file_digest(file) for file in files])):
                    changed.append(example.id)
    return changed


def require_unchanged_photographs(run: Run) -> None:
    """Refuse to go on with photographs that are not those of data.json, or data.json with other samples.

    Raises:
        RunError: names the first.
    """
    if changed := changed_photographs(run):
        raise RunError(
            f"{run.config.data.root}: {_listed(changed)} changed since this run read "
            f"{'it' if len(changed) == 1 else 'them'}; put back what was there, or call `flawsmith run CONFIG --out "
            f"{run.folder}` again, which makes anew what depends on it"
        )
    require_as_learned(run)


def changed_files(run: Run, sample: Sample) -> list[str]:
    """Return which of a sample's two files are not as they were written, below the run folder.

    Only files under the names that the run gives: what an edited line names may not be told to be deleted.
    """
    numbered = rf"((samples|controls|repaired)/{sample.index:06d}|reviewed/{sample.index:06d}-[0-9a-f]{{8}})"
    own = re.compile(rf"{numbered}(\.mask\.png|\.png|\.tif)")
    files = ((sample.image, sample.image_hash), (sample.mask, sample.mask_hash))
    named = [(name, written) for name, written in files if written and own.fullmatch(name)]
    return [name for name, written in named if file_digest(run.path(name)) != written]


def require_as_made(run: Run, samples: Iterable[Sample], *, gone: bool = False) -> None:
    """Refuse to go on with pictures or masks that were edited, cut or emptied since they were made.

    Args:
        run: The run.
        samples: Samples and controls.
        gone: True: files that are not there do not count; they are made again.

    Raises:
        RunError: names the first, and how to get them back.
    """
    changed = [name for sample in samples for name in changed_files(run, sample)]
    if gone:
        changed = [name for name in changed if run.path(name).exists()]
    if changed:
        them = "it" if len(changed) == 1 else "them"
        again = "screen" if all(name.startswith("repaired/") for name in changed) else "generate"
        raise RunError(
            f"{run.folder}: {_listed(changed)} changed or went away since flawsmith wrote {them}; what is left of "
            f"{them} can be deleted, and `flawsmith {again} {run.folder}` makes {them} again, bit for bit"
        )


def weight_digests(run: Run, names: Iterable[str]) -> dict[str, str]:
    """Return the digest of each file of weights, by its name below the run folder; "absent" = it is not there.

    Files of some GB are read again only when their size or times changed since; state/weights.json says so.
    """
    path = run.path("state", "weights.json")
    known, digests, remember = read_json(path) if path.is_file() else {}, dict[str, str](), False
    with reading(path):
        for name in names:
            file, remembered = run.path(name), known.get(name, {})
            state = file_state(file)
            same = bool(state) and remembered.get("state") == state
            digests[name] = str(remembered["digest"]) if same else file_digest(file)
            if state and not same:
                known[name], remember = {"state": state, "digest": digests[name]}, True
    if remember:
        write_json(path, known)
    return digests


def require_as_trained(run: Run) -> None:
    """Refuse to go on with weights that somebody edited or swapped since they were trained; one that is gone does not
    count, for it is trained again.

    Raises:
        RunError: names the first, and how to get them back.
    """
    record = run.record("train")
    with reading(run.path("manifest.json")):
        trained = {str(name): str(content) for name, content in record.get("weight_digests", {}).items()}
    now = weight_digests(run, trained)
    changed = [name for name, content in trained.items() if now[name] not in (content, "absent")]
    if changed:
        them = "it" if len(changed) == 1 else "them"
        raise RunError(
            f"{run.folder}: {_listed(changed)} changed since flawsmith trained {them}; put back what was there, or "
            f"delete {them}, and `flawsmith train {run.folder}` trains {them} again"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
