"""exports/mvtec.py and exports/export.py: what Anomalib takes, nothing else, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.exported.names import folder_names, safe_name
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.exports.export import export, opened, write
from flawsmith.exports.mvtec import Mvtec
from flawsmith.files import write_json
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine, Sample, append_records
from flawsmith.types import Example


def grain(seed: int, shape: tuple[int, ...] = (20, 30), top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def normal(folder: Path, name: str, pixels: np.ndarray, split: str = "train", product: str = "screw") -> Example:
    images.write(folder / name, pixels)
    return Example(f"good/{name}", folder / name, product, None, (), split)


def damaged(folder: Path, name: str, pixels: np.ndarray, defect: str = "dent", product: str = "screw") -> Example:
    mask = np.zeros(pixels.shape[:2], bool)
    mask[3:7, 4:9] = True
    images.write(folder / name, pixels)
    images.write_mask(folder / f"{name}.mask.png", mask)
    return Example(f"made/{name}", folder / name, product, defect, (folder / f"{name}.mask.png",), "test")


def exported(examples: list[Example], folder: Path, **settings: object) -> dict[str, int]:
    return write(Mvtec(Mvtec.Settings.model_validate(settings)), examples, folder)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def as_anomalib_reads(category: Path) -> list[tuple[str, str, str]]:
    """(split, label, mask) of each picture, by the rule of Anomalib's MVTecAD: the last three parts of every path."""
    rows = [tuple(path.parts[-3:]) for path in sorted(category.glob("**/*")) if path.suffix in (".png", ".PNG")]
    masks = [f"{label}/{name}" for split, label, name in rows if split == "ground_truth"]
    taken = []
    for split, label, name in rows:
        if split == "ground_truth":
            continue
        mask = masks.pop(0) if (split, label) not in (("train", "good"), ("test", "good")) else ""
        assert not mask or Path(name).stem in Path(mask).stem
        taken.append((split, label, mask))
    assert not masks
    return taken


def test_layout_counts_and_provenance(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out" / "mvtec"
    examples = [
        *(normal(data, f"{n}.png", grain(n)) for n in range(3)),
        normal(data, "t.png", grain(9), "test"),
        damaged(data, "a.png", grain(10)),
        damaged(data, "b.png", grain(11), "scratch head"),
        damaged(data, "c.png", grain(12)),
    ]
    counts = exported(examples, out)
    assert counts == {
        "screw/test/dent": 2, "screw/test/good": 1, "screw/test/scratch_head": 1, "screw/train/good": 3
    }  # fmt: skip
    assert files_below(out) == [
        "names.csv",
        "provenance.jsonl",
        "screw/ground_truth/dent/000_mask.png",
        "screw/ground_truth/dent/001_mask.png",
        "screw/ground_truth/scratch_head/000_mask.png",
        "screw/test/dent/000.png",
        "screw/test/dent/001.png",
        "screw/test/good/000.png",
        "screw/test/scratch_head/000.png",
        *(f"screw/train/good/{n:03d}.png" for n in range(3)),
    ]
    assert len(as_anomalib_reads(out / "screw")) == 7
    lines = [json.loads(line) for line in (out / "provenance.jsonl").read_text().splitlines()]
    assert len(lines) == 7
    line = next(line for line in lines if line["file"] == "screw/test/scratch_head/000.png")
    assert line["mask"] == "screw/ground_truth/scratch_head/000_mask.png"
    assert (line["id"], line["defect"], line["how"]) == ("made/b.png", "scratch head", "copied")
    assert line["source"] == str(data / "b.png")


def test_eight_bit_png_keeps_its_bytes_and_is_no_link(tmp_path: Path) -> None:
    example = normal(tmp_path, "a.png", grain(1, (20, 30, 3)))
    exported([example], tmp_path / "out")
    copy = tmp_path / "out" / "screw" / "train" / "good" / "000.png"
    assert copy.read_bytes() == example.image.read_bytes()
    assert copy.stat().st_ino != example.image.stat().st_ino


def test_a_turned_png_and_a_jpeg_are_written_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(grain(1)).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(grain(2)).save(tmp_path / "b.jpg", exif=exif)
    examples = [Example(name, tmp_path / name, "p", None, (), "train") for name in ("a.png", "b.jpg")]
    exported(examples, tmp_path / "out")
    for number, example in enumerate(examples):
        with Image.open(tmp_path / "out" / "p" / "train" / "good" / f"{number:03d}.png") as picture:
            seen = np.array(picture)
        assert seen.shape == (30, 20)
        assert (seen == images.read(example.image)).all()


def test_deep_pictures_become_eight_bits_on_one_scale(tmp_path: Path) -> None:
    """A 12-bit camera in a 16-bit file: 4095 is white, and a defect is scaled like the normal parts."""
    part = grain(1, top=4096, dtype=np.uint16)
    part[0, 0] = 4095
    hurt = part // 2
    examples = [normal(tmp_path, "a.png", part), damaged(tmp_path, "b.png", hurt)]
    exported(examples, tmp_path / "out")
    whole = images.read(tmp_path / "out/screw/train/good/000.png")
    half = images.read(tmp_path / "out/screw/test/dent/000.png")
    assert whole.dtype == half.dtype == np.uint8
    assert (whole == np.rint(part / 4095 * 255)).all()
    assert (half == np.rint(hurt / 4095 * 255)).all()
    exported(examples, tmp_path / "deep", bits="native")
    assert (tmp_path / "deep/screw/train/good/000.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_float_pictures_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    part = np.linspace(-3, 5, 600, dtype=np.float32).reshape(20, 30)
    examples = [normal(tmp_path, "a.tif", part), damaged(tmp_path, "b.tif", part)]
    exported(examples, tmp_path / "out")
    seen = images.read(tmp_path / "out/screw/train/good/000.png")
    assert seen.min() == 0 and seen.max() == 255
    assert (seen == images.read(tmp_path / "out/screw/test/dent/000.png")).all()
    exported(examples, tmp_path / "deep", bits="native")
    assert (images.read(tmp_path / "deep/screw/test/dent/000.tif") == part).all()
    assert (tmp_path / "deep/screw/ground_truth/dent/000_mask.png").exists()


def test_odd_names_clash_and_stay_ascii(tmp_path: Path) -> None:
    defects = ["Öl", "ol", "good", "凹み", "a/b", "a b", "con", "x" * 100, "..", "crack."]
    examples = [normal(tmp_path, "s.png", grain(0), product="größe/5 mm")]
    examples += [damaged(tmp_path, f"{n}.png", grain(n), defect, "größe/5 mm") for n, defect in enumerate(defects)]
    counts = exported(examples, tmp_path / "out")
    names = [home.split("/")[-1] for home in counts if "/test/" in home]
    assert len(names) == len(defects) == len({name.lower() for name in names})
    assert {"Ol", "ol-2", "good-2", "a_b", "a_b-2", "con_", "crack", "unnamed", "Aomi"} <= set(names)
    for path in files_below(tmp_path / "out"):
        assert path.isascii() and path.isprintable() and " " not in path and len(path) < 200
    lines = [json.loads(line) for line in (tmp_path / "out/provenance.jsonl").read_text().splitlines()]
    assert {line["defect"] for line in lines} == {None, *defects}


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("찍힘", "JjigHim"),
        ("긁힘 2", "GeulgHim_2"),
        ("划痕", "HuaHen"),
        ("царапина", "tsarapina"),
        ("キズ/小", "kizu_Xiao"),
        ("dent-凹み", "dent-Aomi"),
        (unicodedata.normalize("NFD", "찍힘"), "JjigHim"),
        # Latin names are what they were.
        ("größe/5 mm", "groe_5_mm"),
        ("Öl/Fett fleck", "Ol_Fett_fleck"),
        ("ﬁlm ½", "film_12"),
        ("scratch head", "scratch_head"),
        ("…", "unnamed"),
        ("ß", "ss"),
    ],
)
def test_names_are_readable(name: str, folder: str) -> None:
    assert safe_name(name) == folder


def test_names_of_other_scripts_are_the_same_whatever_else_is_selected(tmp_path: Path) -> None:
    good = normal(tmp_path, "s.png", grain(0), product="판")
    kinds = [damaged(tmp_path, f"{n}.png", grain(n), name, "판") for n, name in enumerate(["찍힘", "긁힘", "hole"], 1)]
    folders: dict[str, set[str]] = defaultdict(set)
    for number, chosen in enumerate((kinds, kinds[::-1], kinds[:1], kinds[1:2], kinds[2:], kinds[1:])):
        out = tmp_path / f"out{number}"
        exported([good, *chosen], out)
        for line in map(json.loads, (out / "provenance.jsonl").read_text("utf-8").splitlines()):
            folders[line["defect"] or "good"].add("/".join(line["file"].split("/")[:-1]))
    assert folders == {
        "good": {"Pan/train/good"},
        "찍힘": {"Pan/test/JjigHim"},
        "긁힘": {"Pan/test/GeulgHim"},
        "hole": {"Pan/test/hole"},
    }
    lines = map(json.loads, (tmp_path / "out0/provenance.jsonl").read_text("utf-8").splitlines())
    assert {(line["product"], line["defect"], line["category"], line["label"]) for line in lines} == {
        ("판", None, "Pan", "good"),
        ("판", "찍힘", "Pan", "JjigHim"),
        ("판", "긁힘", "Pan", "GeulgHim"),
        ("판", "hole", "Pan", "hole"),
    }
    assert len(as_anomalib_reads(tmp_path / "out0/Pan")) == 4
    assert (tmp_path / "out0/names.csv").read_text("utf-8-sig").splitlines() == [
        "folder,product,defect",
        "Pan,판,",
        "Pan/test/hole,판,hole",
        "Pan/test/GeulgHim,판,긁힘",
        "Pan/test/JjigHim,판,찍힘",
    ]


def test_names_that_read_alike_do_not_depend_on_the_order() -> None:
    names = ["나사", "낫아", "NaSa", "划痕"]
    made = folder_names(names, ["good"])
    assert made == folder_names(names[::-1], ["good"]) and made["NaSa"] == "NaSa" and made["划痕"] == "HuaHen"
    assert len({folder.lower() for folder in made.values()}) == 4
    assert all(re.fullmatch(r"Na-?[sS]-?[aA]-[0-9a-f]{4}", made[name]) for name in names[:2])
    long = ["가" * 40, "가" * 41]  # alike in the letters that there is room for
    assert len(set(folder_names(long, []).values())) == 2
    assert folder_names(long, []) == folder_names(long[::-1], [])
    assert folder_names(["굳", "good"], ["good"])["good"] == "good-2"
    assert folder_names(["Crack", "crack"], []) == {"Crack": "Crack", "crack": "crack-2"}


def test_again_replaces_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported([normal(tmp_path, f"{n}.png", grain(n)) for n in range(3)], out)
    exported([normal(tmp_path, "0.png", grain(0))], out)
    assert files_below(out) == ["names.csv", "provenance.jsonl", "screw/train/good/000.png"]
    assert not list(tmp_path.glob(".*"))


def test_a_failure_leaves_the_old_export_and_no_rest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = normal(tmp_path, "0.png", grain(0))
    exported([good], out)
    before = files_below(out)
    broken = Example("x", tmp_path / "missing.png", "screw", None, (), "train")
    with pytest.raises(DataError, match="missing.png: there is no such file"):
        exported([good, broken], out)
    assert files_below(out) == before
    assert not list(tmp_path.glob(".*"))


def test_refusals_say_what_would_be_right(tmp_path: Path) -> None:
    good, bad = normal(tmp_path, "0.png", grain(0)), damaged(tmp_path, "1.png", grain(1))
    with pytest.raises(DataError, match="nothing to export"):
        exported([], tmp_path / "out")
    with pytest.raises(DataError, match="screw: no normal parts to learn from"):
        exported([bad], tmp_path / "out")
    with pytest.raises(DataError, match="without a mask cannot be exported"):
        exported([good, Example("x", bad.image, "screw", "dent")], tmp_path / "out")
    images.write_mask(tmp_path / "1.png.mask.png", np.zeros((20, 30), bool))
    with pytest.raises(DataError, match="the mask is empty"):
        exported([good, bad], tmp_path / "out")
    with pytest.raises(RunError, match="Anomalib takes 511"):
        exported([good], tmp_path / "/".join(["d" * 90] * 6))
    assert not (tmp_path / "out").exists()


# --- the stage ----------------------------------------------------------------------------------------------------


def row(example: Example) -> dict[str, object]:
    return {
        "id": example.id, "image": str(example.image), "product": example.product, "defect": example.defect,
        "masks": [str(path) for path in example.masks], "split": example.split,
        "mask_rule": None,
    }  # fmt: skip


def planned(index: int) -> PlanLine:
    return PlanLine(
        index, "sample", index, "screw", "crop_paste", "screw", "dent", index, "good/0.png", "made/shot.png", "shots"
    )


def run_with(tmp_path: Path, samples: list[Sample], plan: int = 0, **changes: object) -> Run:
    data = tmp_path / "data"
    run = Run.create(tmp_path / "run", Config.model_validate({**changes, "data": {"root": data}}))
    normals = [normal(data, f"{n}.png", grain(n), "") for n in range(2)]
    held = [normal(data, "h.png", grain(5), "")]
    groups = {
        "shots": [damaged(data, "shot.png", grain(6))],
        "normals": normals,
        "test_defects": [],
        "test_normals": held,
    }
    write_json(
        run.path("data.json"),
        {"hash": "h", "notes": [], "warnings": []} | {k: [row(e) for e in v] for k, v in groups.items()},
    )
    if plan:
        append_records(run.path("plan.jsonl"), [planned(n) for n in range(plan)])
    if samples:
        append_records(run.path("samples.jsonl"), samples)
    return run


def sample(run: Path, index: int, status: str = "made") -> Sample:
    one = Sample(
        index, "sample", status, "crop_paste", "screw", "dent", "good/0.png", "made/shot.png", index, 0, "residual",
        (), 0.0, 0,
    )  # fmt: skip
    if status != "made":
        return one
    made = damaged(run / "samples", f"{index:06d}.png", grain(100 + index))
    (run / "samples" / f"{index:06d}.png.mask.png").rename(run / "samples" / f"{index:06d}.mask.png")
    return replace(one, image=f"samples/{made.image.name}", mask=f"samples/{index:06d}.mask.png", area=20)


def finished(tmp_path: Path, **changes: object) -> tuple[Run, list[Sample]]:
    """A run of two samples, and one that was given up between them."""
    rows = [sample(tmp_path / "run", 0), sample(tmp_path / "run", 1, "invisible"), sample(tmp_path / "run", 2)]
    (tmp_path / "run").rename(tmp_path / "aside")
    run = run_with(tmp_path, rows, plan=3, **changes)
    (tmp_path / "aside" / "samples").rename(run.path("samples"))
    return run, rows


def test_the_stage_exports_what_was_made(tmp_path: Path) -> None:
    run, rows = finished(tmp_path)
    export(run)
    out = run.path("export", "mvtec")
    assert [path for path in files_below(out) if "/train/" in path or "/good/" in path] == [
        "screw/test/good/000.png", "screw/train/good/000.png", "screw/train/good/001.png"
    ]  # fmt: skip
    assert (out / "screw/test/dent/001.png").read_bytes() == run.path("samples/000002.png").read_bytes()
    marker = out / "mine.txt"
    marker.write_text("kept when nothing changed")
    export(run)
    assert marker.exists()
    append_records(run.path("samples.jsonl"), [replace(rows[0], index=3)])
    export(run)
    assert not marker.exists()
    assert (out / "screw/test/dent/002.png").exists()
    assert run.record("export")["counts"]["mvtec"] == {
        "screw/test/dent": 3, "screw/test/good": 1, "screw/train/good": 2
    }  # fmt: skip


def test_an_exporters_own_setting_exports_anew(tmp_path: Path) -> None:
    run, _ = finished(tmp_path)
    data = {"data": {"root": tmp_path / "data"}}
    export(run)
    first = run.stage_hash("export")
    other = Run.create(
        run.folder, Config.model_validate({**data, "export": {"settings": {"mvtec": {"bits": "native"}}}})
    )
    export(other)
    assert other.stage_hash("export") not in (None, first)
    wrong = Run.create(run.folder, Config.model_validate({**data, "export": {"settings": {"mvtec": {"depth": 8}}}}))
    with pytest.raises(ConfigError, match="export.settings.mvtec: depth: unknown key"):
        export(wrong)
    assert wrong.stage_hash("export") == other.stage_hash("export")


def test_real_shots_go_along_marked_when_asked_for(tmp_path: Path) -> None:
    run, _ = finished(tmp_path, export={"real": "shots", "formats": ["mvtec", "coco"]})
    export(run)
    folder = run.path("export")
    rows = [json.loads(line) for line in (folder / "mvtec/provenance.jsonl").read_text().splitlines()]
    assert [(row["file"], row["id"]) for row in rows if "origin" in row] == [
        ("screw/test/dent/002.png", "made/shot.png")
    ]
    trees = [json.loads(path.read_text()) for path in sorted(folder.glob("coco/annotations/*.json"))]
    origins = {one["source"]: one["origin"] for tree in trees for one in tree["images"]}
    assert origins["made/shot.png"] == "real" and origins["samples/000000.png"] == "made"
    sides = [{one["photograph"] for one in tree["images"]} for tree in trees]
    assert not sides[0] & sides[1]


def test_the_command_changes_what_a_run_exports_and_nothing_else(tmp_path: Path) -> None:
    run, _ = finished(tmp_path)
    changed = opened(run.folder, ['export.formats=["yolo"]', "export.settings={yolo={task='detect'}}"])
    export(changed)
    assert run.path("export", "yolo", "data.yaml").is_file() and not run.path("export", "mvtec").exists()
    assert opened(run.folder).config == changed.config
    for wrong, said in (
        ("train.steps=3", r"`flawsmith export` takes data\.root and export\.\* alone"),
        ("data.root=elsewhere", "there is no such folder"),
        ('export.formats=["yoolo"]', "'yoolo' is unknown; did you mean 'yolo'"),
        ("export.settings={yolo={task='boxes'}}", "export.settings.yolo: task: should be 'segment' or 'detect'"),
        ("export.reel=shots", "export.reel: unknown key; did you mean 'real'"),
    ):
        with pytest.raises(ConfigError, match=said):
            opened(run.folder, [wrong])
        assert opened(run.folder).config == changed.config


def test_nothing_made_is_said_with_its_reasons(tmp_path: Path) -> None:
    rows = [sample(tmp_path, n, "invisible") for n in range(3)]
    with pytest.raises(RunError, match=r"none of 3 samples could be used \(3 invisible\)"):
        export(run_with(tmp_path / "a", rows, plan=3))
    with pytest.raises(RunError, match="none of 4 planned samples is made yet; run `flawsmith generate"):
        export(run_with(tmp_path / "b", [], plan=4))
    with pytest.raises(RunError, match="no sample is planned yet"):
        export(run_with(tmp_path / "c", []))


HEAVY = {"torch", "diffusers", "transformers"}
EXPORT = f"""
import sys
from flawsmith import cli
sys.argv = ["flawsmith", "export", sys.argv[1]]
try:
    cli.main()
except SystemExit as end:
    assert not end.code
print(sorted({HEAVY} & set(sys.modules)))
"""


def python(*words: str) -> list[str]:
    """Run Python in a process of its own and return the lines that it prints."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=dict(os.environ), timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_the_stage_needs_no_torch() -> None:
    code = f"import sys, flawsmith.exports.export; print(sorted({HEAVY} & set(sys.modules)))"
    assert python("-c", code) == ["[]"]


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    """From a run of samples to a folder that Anomalib reads: an export is files and nothing else."""
    run, _ = finished(tmp_path)
    said, opened, following, heavy = python("-c", EXPORT, str(run.folder))
    assert heavy == "[]" and re.fullmatch(r"export: mvtec \(\d+ pictures\)(; .*)?", said)
    assert (opened, following) == (f"open: {run.path('export', 'mvtec')}", f"next: flawsmith report {run.folder}")
    assert len(as_anomalib_reads(run.path("export", "mvtec", "screw"))) == 5


def test_an_unknown_format_is_named_before_any_work(tmp_path: Path) -> None:
    run = Run(tmp_path, Config.model_validate({"export": {"formats": ["mvtek"]}}))
    with pytest.raises(ConfigError, match="did you mean 'mvtec'"):
        export(run)
