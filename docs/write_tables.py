"""Write the tables of docs/methods.md and of its Korean page from the registry and benchmarks/results:

    python docs/write_tables.py

What each generator needs comes from its class, every figure from a result of a committed suite, and only the last
column, when to use it, is written by hand. A result that is not there is a dash with the reason. When a page is not
what this script writes, `tests/test_drawings.py` fails: run it when a result changes or a generator is registered. The
Korean words are those of docs/tables_in_korean.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]

from generator_figures import (  # noqa: E402
    ROOT,
    SETS,
    TASKS,
    Judged,
    copies_of,
    each,
    judged_beside_shots,
    memory_of,
    result,
    seconds_of,
    training_of,
    unjudged,
    worth_of,
)
from tables_in_korean import in_korean  # noqa: E402

from flawsmith import registry  # noqa: E402

PAGES: dict[Path, Callable[[str], str]] = {
    ROOT / "docs" / "methods.md": str,
    ROOT / "docs" / "ko" / "methods.md": in_korean,
}
"""Page -> what says English tables in its language."""
BEGIN, END = "<!-- tables: written by docs/write_tables.py -->", "<!-- end of tables -->"

USE = {  # the one column that no result decides: when to take it
    "patch_synthesis": "the default: some shots, nothing to train",
    "crop_paste": "one shot is enough; what every other one must beat",
    "controlnet_inpaint": "shots of textures that vary; a diffusion model that is told mask and type",
    "cross_modal": "a photograph shows the look, also one of another product",
    "hybrid": "look from a photograph and place from a mask, with a large backbone",
    "dual_branch": "the place of new damage is not given: it draws the sample's mask itself (shots still need masks)",
    "anomaly_diffusion": "to compare with the papers; it trains words, and little else",
    "few_steps": "many samples of a trained `controlnet_inpaint`, quickly",
    "rendered": "no shot at all, and the damage can be named",
    "cutpaste": "no shot; to train a detector as its paper does",
    "nsa": "no shot; several normal parts of one texture",
    "perlin": "no shot; to train a detector as DRAEM does",
    "component": "parts that are missing, doubled, turned or moved",
    "prompt_inpaint": "no shot, but a large backbone and a word for the damage",
}


def ours() -> list[str]:
    """Return the registered generators of this package, in the order of USE."""
    names = [name for name in registry.entries("generators") if registry.is_ours("generators", name)]
    if missing := sorted(set(names) - set(USE)):
        raise SystemExit(f"docs/write_tables.py: USE lacks {', '.join(missing)}; say when to use it")
    return sorted(names, key=list(USE).index)


def worth() -> Iterator[str]:
    yield f"| | judge, backbone, N | {_COLUMNS} | copies of a shot |"
    yield "|---" * (3 + 2 * len(SETS)) + "|"
    for generator in ours():
        file, rows = worth_of(generator)
        copied = {words: copied for name, words in SETS.items() if (copied := copies_of(generator, name))}
        copies = ", ".join(f"{words} {share}" for words, share in copied.items())
        if not copies:
            plugin = registry.get("generators", generator)
            copies = "– it repeats no shot" if plugin.without_shots else "– not measured"
        if not rows:
            yield f"| `{generator}` | – {unjudged(generator)} |" + " – |" * 2 * len(SETS) + f" {copies} |"
            continue
        judgements = list(rows.values())
        said = [
            f"`{each([row.judge for row in judgements])}`",
            each([row.backbone or "no backbone" for row in judgements]),
            f"{each([row.samples for row in judgements])} samples",
            f"{each([row.test for row in judgements])} test pictures",
            f"{each([row.seeds for row in judgements])} seeds",
        ]
        yield f"| `{generator}` | {', '.join(said)} ({file}) | {_cells(rows)} | {copies} |"


def _cells(rows: Mapping[str, Judged]) -> str:
    return " | ".join(
        rows[name].figures.get(task, "– not run") if name in rows else "– not run" for name in SETS for task in TASKS
    )


_COLUMNS = " | ".join(f"{words}: {figure}" for words in SETS.values() for figure in ("pixel AP", "image AUROC"))


def few_shots() -> Iterator[str]:
    """Yield the table of what samples without a shot are worth alone and beside few; nothing while it is not there."""
    lines = []
    for generator in ours():
        for shots in (0, 1, 3):
            rows = {name: row for name in SETS if (row := judged_beside_shots(generator, name, shots)) is not None}
            if rows:
                lines.append(f"| `{generator}` | {shots} | {_cells(rows)} |")
    if lines:
        yield f"| | shots of each type | {_COLUMNS} |"
        yield "|---" * (2 + 2 * len(SETS)) + "|"
        yield from lines


def needs() -> Iterator[str]:
    yield "| | shots | target mask | backbone | training | seconds a sample | memory, GB | use it when |"
    yield "|---" * 8 + "|"
    for generator in ours():
        plugin = registry.get("generators", generator)
        backbone = "no" if not plugin.needs_backbone else "a student" if generator == "few_steps" else "yes"
        if generator == "prompt_inpaint":
            backbone = "a large one"
        cells = [
            "not needed" if plugin.without_shots else "needed",
            "asked for" if plugin.needs_mask else "not asked for",
            backbone,
            training_of(generator),
            seconds_of(generator),
            memory_of(generator),
            USE[generator],
        ]
        yield f"| `{generator}` | {' | '.join(cells)} |"


NEEDS_NOTE = """
Training by the clock on two cores, other work beside, with the built-in backbone (`proof.json`). Seconds with one letter can be compared, others not: (a) processor
seconds on the tiles, one thread, diffusion from noise in 20 steps (`patch_diffusion.json`); (b) processor seconds on tiles and screws
(`zero_shots.json`); (c) by the clock on two cores, other work beside (`proof.json`); (d) by the clock, 4 steps (`distillation_speed.json`);
(e) processor seconds of a whole run, checks too, on pieces of 300 px and less, 2 steps (`exactness.json`). Memory: (f) GiB on a card at Stable
Diffusion 1.5's size, 512 px, 16 windows a step (`memory_presets.json`); (g) of the whole process, colour photographs of 2048 px
(`picture_memory.json`).
"""  # noqa: E501
WORTH_NOTE = """
Clean protocol, 10 shots of each of five types, EfficientNet-Lite0; the mean over defect types in points. In brackets the difference to the same
shots alone *in the same run*, with its 95 % interval: compare these, not the figures of two runs. A star: the verdict is of this comparison
alone, not corrected for how many there are. Judged by today's `memory_probe`, but for
`zero_shots.json`, where heads and memory counted alike. Last column: the share of samples that repeat a shot; of real test defects {real} do.
"""  # noqa: E501
FEW_NOTE = """
From `zero_shots.json`. With 0 shots the difference is to `patchcore`, which learns from normal parts alone; else to the same shots alone. The
test set is that of ten shots.
"""  # noqa: E501


def tables() -> str:
    """Return what stands between the markers."""
    known = (result("looks.json").get(f"{name}, 10 shots, test") for name in SETS)
    real = " and ".join(f"{100 * row['real']['copies']['mean']:.1f} %" for row in known if row)
    parts = ["### What each needs", "\n".join(needs()), NEEDS_NOTE.strip()]
    parts += [
        "### What each is worth",
        "\n".join(worth()),
        WORTH_NOTE.strip().format(real=real or "none are known that"),
    ]
    if few := list(few_shots()):
        parts += ["### Without a shot, and beside one and three", "\n".join(few), FEW_NOTE.strip()]
    return "\n\n".join(parts)


def with_tables(page: Path) -> str:
    """Return a page with the tables of today."""
    head, _, tail = page.read_text(encoding="utf-8").partition(BEGIN)
    return f"{head}{BEGIN}\n\n{PAGES[page](tables())}\n\n{END}{tail.partition(END)[2]}"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page), encoding="utf-8")
        print(page.relative_to(ROOT))
