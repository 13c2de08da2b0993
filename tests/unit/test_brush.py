"""synthesis/by_hand/brush.py: one defect into a drawn mask, as `generate` would make it; what a user may get wrong."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import flawsmith as fs
from flawsmith import cli
from flawsmith.data import images
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.plan import asked_mask

SMALL = {"data.shots": 2, "generator.name": "crop_paste", "generate.count": 2, "generate.controls": 0}


@pytest.fixture(scope="module")
def run(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """A finished run of crop_paste on two products."""
    made = fs.Run.create(
        tmp_path_factory.mktemp("brush") / "run", fs.load_config(None, {"data.root": str(factory_root), **SMALL})
    )
    fs.train(made)
    fs.generate(made)
    return made


@pytest.fixture(scope="module")
def brush(run: fs.Run) -> fs.Brush:
    return fs.Brush.open(run)


@pytest.fixture
def part(factory_root: Path) -> Path:
    """A photograph of a normal magnet."""
    return factory_root / "magnet/train/good/000.png"


def drawn(shape: tuple[int, ...] = (128, 128)) -> np.ndarray:
    """A slanted bar, bool (H,W)."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    return np.asarray((abs(row - column / 2 - 30) < 5) & (column > 30) & (column < 90))


def planned(brush: fs.Brush, line: PlanLine) -> tuple[Path, np.ndarray]:
    """A plan line's photograph, and where it wants damage."""
    split, photographs = brush.data.split, brush.data.photographs
    by_id = {example.id: example for example in (*split.normals, *split.shots)}
    normal, shot = by_id[line.normal], by_id[line.shot]
    return normal.image, asked_mask(line, normal, shot, split.shots, photographs, brush.config.generate.turn)


def test_a_line_of_the_plan_gives_the_sample_of_the_plan(run: fs.Run, brush: fs.Brush) -> None:
    rows = [row for row in run.samples() if row.made]
    assert len(rows) == 6
    for line, row in zip(run.plan(), rows, strict=True):
        photograph, asked = planned(brush, line)
        painted = brush.paint(photograph, asked, line.defect, line.seed, shot=line.shot, pose=line.pose)
        assert painted.picture.tobytes() == images.read(run.path(row.image)).tobytes()
        assert (painted.mask == images.read_mask(run.path(row.mask), painted.mask.shape)).all()
        made = painted.provenance
        assert (made.product, made.shot, made.attempt, made.paint) == (row.product, row.shot, row.attempt, row.paint)
        assert (made.area, made.overlap, made.pose) == (row.area, None, line.pose)
        # left to itself it finds the shot and very nearly the pose; a part's mask was grown by what its outline lacks
        again = brush.paint(photograph, asked, line.defect, line.seed)
        least = 0.8 if row.product == "magnet" else 0.65
        planned_shot = brush.paint(photograph, asked, line.defect, line.seed, shot=line.shot).provenance
        assert again.provenance.overlap >= planned_shot.overlap > least
        assert again.provenance.shot == line.shot or (
            row.product != "magnet" and again.provenance.overlap > planned_shot.overlap
        )


@pytest.mark.parametrize("generator", ["crop_paste", "perlin"])
def test_a_plan_line_that_names_a_mask_file_gives_the_same(
    generator: str, run: fs.Run, part: Path, tmp_path: Path
) -> None:
    brush = fs.Brush.open(run, generator=generator)
    file = tmp_path / "mask.png"
    images.write_mask(file, drawn())
    painted = brush.paint(part, file, "crack", 5)
    made = painted.provenance
    assert bool(made.shot) == brush.plugin.needs_shot and made.generator == generator
    line = PlanLine(
        index=3,
        role="sample",
        batch=0,
        job="magnet",
        generator=generator,
        product="magnet",
        defect="crack",
        seed=5,
        normal="magnet/train/good/000.png",
        shot=made.shot or "magnet/test/crack/000.png",
        mask_source="file",
        mask_file=str(file),
        pose=made.pose,
    )
    (planned_line,) = brush.painters.of("magnet").paint([line])
    assert np.array_equal(planned_line.picture, painted.picture) and np.array_equal(planned_line.mask, painted.mask)
    assert not (painted.mask & ~drawn()).any(), "a mask that was drawn says where damage may lie"


@pytest.mark.parametrize("generator", ["crop_paste", "patch_synthesis", "perlin"])
def test_run_prepared_run_and_folder_paint_alike_and_leave_no_trace(
    generator: str, run: fs.Run, factory_root: Path, part: Path, tmp_path: Path
) -> None:
    prepared = fs.Run.create(tmp_path / "run", run.config)
    toml = tmp_path / "my.toml"
    toml.write_text(f"[data]\nroot = {str(factory_root)!r}\nshots = 2\n")
    before = sorted(path for folder in (factory_root, tmp_path) for path in folder.rglob("*"))
    ours = {"data.shots": 2}
    pictures = [
        fs.paint(run, part, drawn(), "crack", 1, generator=generator),
        fs.paint(str(prepared.folder), part, drawn(), "crack", 1, generator=generator),
        fs.paint(factory_root, part, drawn(), "crack", 1, generator=generator, settings=ours),
        fs.paint(toml, part, drawn(), "crack", 1, generator=generator),
    ]
    assert len({(one.picture.tobytes(), one.mask.tobytes()) for one in pictures}) == 1
    assert len({one.provenance.inputs for one in pictures}) == 1
    other = fs.paint(toml, part, drawn(), "crack", 1, generator=generator, settings={"generate.feather": 2.0})
    assert other.provenance.inputs != pictures[0].provenance.inputs
    assert {one.provenance.generator for one in pictures} == {generator}
    assert pictures[0].provenance.source == str(run.folder) and pictures[2].provenance.source == str(factory_root)
    assert before == sorted(path for folder in (factory_root, tmp_path) for path in folder.rglob("*"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("grey", [False, True])
def test_outside_the_mask_every_byte_is_the_photographs(brush: fs.Brush, part: Path, dtype: str, grey: bool) -> None:
    native = images.read(part)
    native = {"uint8": native, "uint16": native.astype(np.uint16) * 257, "float32": native / np.float32(255)}[dtype]
    native = np.ascontiguousarray(native[:, :, 0] if grey else native)
    kept = native.copy()
    one, same, other = (brush.paint(native, drawn(), "chip", seed) for seed in (1, 1, 2))
    assert (native == kept).all(), "what is handed over is only read"
    assert one.picture.dtype == native.dtype and one.picture.shape == native.shape
    assert one.mask.any() and not (one.mask & ~drawn()).any()
    assert (one.picture[~one.mask] == native[~one.mask]).all() and (one.picture[one.mask] != native[one.mask]).any()
    assert one.picture.tobytes() == same.picture.tobytes() != other.picture.tobytes()
    assert one.provenance.photograph == "" and one.provenance.asked_area == drawn().sum()


def test_the_shot_that_fits_is_taken_or_the_one_that_is_named(brush: fs.Brush, part: Path) -> None:
    shots = [shot for shot in brush.data.split.shots if shot.defect == "crack"]
    for shot in shots:
        damage = brush.data.photographs.read(shot).mask
        assert damage is not None
        made = brush.paint(part, np.rot90(damage).copy(), "crack").provenance
        assert made.shot == shot.id and made.overlap > 0.95
        asked = brush.paint(part, np.rot90(damage).copy(), "crack", shot=shots[0].id).provenance
        assert asked.shot == shots[0].id and asked.overlap <= made.overlap


def test_masks_as_painting_programs_save_them(brush: fs.Brush, part: Path, tmp_path: Path) -> None:
    white = drawn()[:, :, None] * np.uint8(255)
    for name, pixels in {
        "grey": white[:, :, 0],
        "colours": np.repeat(white, 3, axis=2),
        "red on nothing": np.concatenate([white, 0 * white, 0 * white, white], axis=2),
    }.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        painted = brush.paint(part, tmp_path / f"{name}.png", "crack")
        assert painted.provenance.asked_area == drawn().sum(), name


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"defect": "crak"}, ConfigError, "defect: there are no shots of 'crak'; did you mean 'crack'?"),
        ({"defect": "bend"}, ConfigError, "defect: 'magnet' has no shots of 'bend'; those that it has: chip, crack"),
        ({"product": "magnets"}, ConfigError, "product: 'magnets' is unknown; did you mean 'magnet'?"),
        ({"product": "screw"}, ConfigError, "defect: 'screw' has no shots of 'crack'; those that it has: bend"),
        ({"shot": "crack/0.png"}, ConfigError, "shot: 'crack/0.png' is no shot of this defect type; did you mean"),
        ({"pose": fs.Brush}, ConfigError, "pose: it belongs to a shot; name that too"),
        ({"seed": -1}, ConfigError, "seed: -1 is out of range; give a whole number from 0 to 2147483647"),
        ({"mask": drawn((64, 128))}, DataError, "mask: the mask has 128 x 64 pixels, but its photograph 128 x 128;"),
        ({"mask": drawn() * 255}, DataError, r"mask: int64 \(128, 128\) is no mask; bool \(H,W\) is"),
        ({"mask": np.zeros((128, 128), bool)}, DataError, "mask: the mask is empty; draw where the damage is to be"),
        ({"mask": "no.png"}, DataError, "no.png: there is no such file"),
        ({"photograph": "no.png"}, DataError, "no.png: there is no such file"),
        ({"photograph": np.zeros((128, 128, 4), np.uint8)}, DataError, r"photograph: \(128, 128, 4\) is not the shape"),
        ({"photograph": np.zeros((128, 128))}, DataError, "photograph: float64 pixels are not painted on"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    brush: fs.Brush, part: Path, change: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=f"^{sentence}") as said:
        brush.paint(**{"photograph": part, "mask": drawn(), "defect": "crack"} | change)
    assert "\n" not in str(said.value)


def test_files_of_masks_that_are_wrong(brush: fs.Brush, part: Path, tmp_path: Path) -> None:
    empty, small, broken = (tmp_path / name for name in ("empty.png", "small.png", "broken.png"))
    images.write_mask(empty, np.zeros((128, 128), bool))
    images.write_mask(small, drawn((100, 90)))
    broken.write_bytes(part.read_bytes()[:400])
    for file, sentence in (
        (empty, f"{empty}: the mask is empty; draw where the damage is to be"),
        (small, f"{small}: the mask has 90 x 100 pixels, but its photograph 128 x 128; they must be the same"),
        (broken, f"{broken}: "),
    ):
        with pytest.raises(DataError) as said:
            brush.paint(part, file, "crack")
        assert str(said.value).startswith(sentence) and "\n" not in str(said.value)
    with pytest.raises(DataError, match="^" + str(broken)):
        brush.paint(broken, drawn(), "crack")


def test_what_does_not_show_is_refused_with_the_reason(run: fs.Run, part: Path) -> None:
    blind = {"generate.min_painted": 1.0, "generate.visible": 1.0}
    for generator, reason in (
        ("crop_paste", "the shot that fits the mask best, magnet/test/crack/00"),
        ("perlin", "larger mask"),
    ):
        with pytest.raises(DataError, match=f"of 3 seeds of {generator} none left a visible crack.*{reason}"):
            fs.paint(run, part, drawn(), "crack", generator=generator, settings=blind)


def test_a_product_that_is_not_clear_is_asked_for(factory_root: Path, part: Path, tmp_path: Path) -> None:
    for name in ("left", "right"):
        shutil.copytree(factory_root / "magnet", tmp_path / name)
    two = fs.Brush.open(tmp_path)
    with pytest.raises(ConfigError, match="is none of the set, and left and right all have shots of 'crack'; name the"):
        two.paint(part, drawn(), "crack")
    assert two.paint(part, drawn(), "crack", product="right").provenance.product == "right"
    assert two.paint(tmp_path / "right/test/good/000.png", drawn(), "crack").provenance.product == "right"
    assert two.defects == {"left": ("chip", "crack"), "right": ("chip", "crack")}


def test_what_cannot_be_opened(run: fs.Run, factory_root: Path, tmp_path: Path) -> None:
    untrained = fs.Run.create(
        tmp_path / "run", fs.load_config(None, {"data.root": str(factory_root), "generator.name": "controlnet_inpaint"})
    )
    for source, how, error, sentence in (
        (tmp_path / "no", {}, DataError, "there is nothing; name a run folder, a folder of photographs or a TOML file"),
        (untrained, {}, RunError, "controlnet_inpaint is not trained with this configuration, or its weights are gone"),
        (run, {"generator": "controlnet_inpaint"}, RunError, "controlnet_inpaint is not trained with this"),
        (factory_root, {"generator": "hybrid"}, ConfigError, "hybrid learns from the shots before it paints; start a"),
        (factory_root, {"generator": "croppaste"}, ConfigError, "'croppaste' is unknown; did you mean 'crop_paste'?"),
        (run, {"settings": {"data.shots": 1}}, ConfigError, "data.shots: a run keeps its photographs; leave it out"),
        (run, {"settings": {"generate.visibl": 1}}, ConfigError, "generate.visibl"),
    ):
        with pytest.raises(error, match=sentence):
            fs.Brush.open(source, **how)
    with pytest.raises(ConfigError, match="this brush is open already"):
        fs.paint(fs.Brush.open(run), tmp_path, tmp_path, "crack", generator="perlin")


def paint(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Call the command line; return how it ends."""
    monkeypatch.setattr(sys, "argv", ["flawsmith", "paint", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_line(
    run: fs.Run, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mask, out = tmp_path / "mask.png", tmp_path / "new" / "a.png"
    images.write_mask(mask, drawn())
    words = (run.folder, "--photograph", part, "--mask", mask, "--defect", "crack", "--seed", 4, "--out", out)
    assert paint(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: crack by crop_paste from magnet/test/crack/00") and said.count("\n") == 1
    assert sorted(path.name for path in out.parent.iterdir()) == ["a.json", "a.mask.png", "a.png"]
    painted = fs.paint(run, part, mask, "crack", 4)
    assert np.array_equal(images.read(out), painted.picture)
    assert np.array_equal(images.read_mask(out.with_suffix(".mask.png"), painted.mask.shape), painted.mask)
    record = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert record == painted.provenance.to_json() and record["version"] == fs.__version__ and record["seed"] == 4

    before = out.read_bytes()
    out.with_suffix(".json").unlink()
    assert paint(monkeypatch, *words[:-4], "--seed", 5, "--out", out) == 2
    assert "a.png, " in (said := capsys.readouterr().err) and "are there already; name another file, or" in said
    assert out.read_bytes() == before and not out.with_suffix(".json").exists()
    assert paint(monkeypatch, *words[:-4], "--seed", 5, "--out", out, "--overwrite") == 0
    assert capsys.readouterr().out.endswith("; overwritten: a.png, a.mask.png\n") and out.read_bytes() != before

    kept = mask.read_bytes()
    assert paint(monkeypatch, *words[:-1], mask, "--overwrite") == 2
    assert "is the photograph or the mask that you paint with" in capsys.readouterr().err and mask.read_bytes() == kept
    assert paint(monkeypatch, *words[:-1], tmp_path / "b.jpg") == 2
    assert (
        paint(monkeypatch, *words[:-1], tmp_path / "b.png", "--generator", "perlin", "--set", "generate.steps=0") == 2
    )
    assert capsys.readouterr().err.count("\n") == 2 and not list(tmp_path.glob("b*"))
