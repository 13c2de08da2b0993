"""Write the normal parts and the made pairs in the layouts that other tools read: export/<format>/."""

from __future__ import annotations

import time
from collections import Counter

from flawsmith import registry
from flawsmith.errors import RunError
from flawsmith.files import digest, read_json, read_lines
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.verdicts import require_kept
from flawsmith.types import Example


def export(run: Run) -> None:
    """Run the stage; does nothing when every format is there already with the same input.

    Exported are the normal parts to learn from (train), those held out (test) and the pairs that stand (test, with
    masks): made, and not rejected where the run is screened. Real defects are left out: the shots would flatter
    whatever is trained here, and the test pictures must stay unseen.

    Raises:
        RunError: no pair was made, or every one was rejected; counts the reasons.
        ConfigError: a format is unknown.
    """
    formats = run.config.export.formats
    writers = {name: registry.get("exports", name) for name in formats}  # an unknown name is said before any work
    examples = exported(run)
    stamp = digest(formats, read_json(run.path("data.json")).get("hash"), run.kept())
    if run.stage_hash("export") == stamp and all(run.path("export", name).is_dir() for name in formats):
        return
    begun = time.time()
    counts = {name: writer(examples, run.path("export", name)) for name, writer in writers.items()}
    run.finish("export", stamp, counts=counts)
    told = ", ".join(f"{name}: {sum(count.values())} pictures" for name, count in counts.items())
    run.log(stage="export", seconds=round(time.time() - begun, 1), what=told or "no format asked for")


def exported(run: Run) -> list[Example]:
    """Return what goes out: normal parts with split "train" or "test", then the kept pairs in order of their index.

    Raises:
        RunError: there is no kept pair.
    """
    split = load_split(run)
    rows = run.samples()
    kept = run.kept() if rows else []
    if not kept:
        require_kept(run)
        raise RunError(f"{run.folder}: nothing to export, {_why_none(run, rows)}")
    normal = [Example(e.id, e.image, e.product, None, None, "train") for e in split.normals]
    normal += [Example(e.id, e.image, e.product, None, None, "test") for e in split.test_normals]
    pairs = [
        Example(row["image"], run.path(row["image"]), row["product"], row["defect"], run.path(row["mask"]), "test")
        for row in kept
    ]
    return normal + pairs


def _why_none(run: Run, rows: list[dict[str, object]]) -> str:
    planned = len(read_lines(run.path("plan.jsonl")))
    if not rows:
        asked = f"none of {planned} planned pairs is made yet" if planned else "no pair is planned yet"
        return f"{asked}; run `flawsmith generate {run.folder}` first"
    reasons = Counter(str(row["status"]) for row in rows)
    told = ", ".join(f"{number} {status}" for status, number in reasons.most_common())
    return (
        f"none of {planned or len(rows)} pairs could be used ({told}); train for longer, or lower generate.min_painted"
        " or generate.visible"
    )
