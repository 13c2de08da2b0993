"""Whole runs: references are planned, a type is borrowed, a sentence is obeyed, and a killed run goes on alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.photographs import Photographs
from flawsmith.errors import ConfigError
from flawsmith.evaluation.measure import measure
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.methods.asea import memory_of
from flawsmith.registry import get
from flawsmith.reporting.explanations import attention_section
from flawsmith.reporting.report import report
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.attention import word_maps
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.plan import make_plan
from flawsmith.synthesis.train import is_trained, train, train_inputs


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path, factory_root: Path) -> Run:
    """A run of cross_modal over two products, of which one lends its crack to the other."""
    overrides: dict[str, Any] = {
        "data.root": str(factory_root),
        "data.shots": 2,
        "backbone.source": str(backbone_folder),
        "backbone.dtype": "float32",
        "generator.name": "cross_modal",
        "generator.settings": {"start": "shot", "strength": 0.5},
        "train.scope": "all",
        "train.steps": 2,
        "train.views": 1,
        "train.batch": 2,
        "generate.count": 2,
        "generate.steps": 2,
        "generate.batch": 3,
        "generate.min_painted": 0.0,
        "generate.transfer": {"from": "magnet", "defect": "crack"},
        "generate.reference": "nearest",
        "measure.metrics": ["alignment"],
        "measure.resamples": 0,
        "prove.enabled": False,
    }
    run = Run.create(tmp_path_factory.mktemp("run") / "r", load_config(None, overrides))
    train(run)
    generate(run)
    return run


def test_a_kind_is_borrowed(borrowed: Run) -> None:
    plan = borrowed.plan()
    lent = [line for line in plan if line.transferred_from]
    assert [(line.product, line.defect, line.transferred_from) for line in lent] == [("screw", "crack", "magnet")] * 2
    for line in lent:
        assert line.normal.startswith("screw") and line.shot.startswith("magnet")
        assert line.reference.startswith("magnet/test/crack")
    assert all(line.reference.split("/")[2] == line.defect for line in plan)
    controls = borrowed.controls()
    assert controls and not any(plan[row.control_of].transferred_from for row in controls)


def test_borrowed_pairs_keep_the_exact_background(borrowed: Run) -> None:
    rows = [row for row in borrowed.samples() if row.made]
    normals = {example.id: example for example in load_split(borrowed).normals}
    pictures = Photographs(tuple(normals.values()))
    assert [row for row in rows if row.transferred_from == "magnet"]
    for row in rows:
        made, normal = images.read(borrowed.path(row.image)), images.read(normals[row.normal].image)
        mask = images.read_mask(borrowed.path(row.mask), made.shape)
        assert mask.any() and np.array_equal(made[~mask], normal[~mask])
        if row.transferred_from:  # a magnet fills its picture; a crack beside the screw would be no crack of the screw
            assert not (mask & ~pictures.part(normals[row.normal])).any()


def test_a_run_that_was_killed_goes_on_alike(borrowed: Run, tmp_path: Path) -> None:
    """The CSM's features are remembered in one process and not in the next: the bytes are the same all the same."""
    twin = tmp_path / "r"
    shutil.copytree(borrowed.folder, twin)
    rows = twin / "samples.jsonl"
    kept = [line for line in rows.read_text().splitlines(keepends=True) if json.loads(line)["index"] >= 3]
    rows.write_text("".join(kept))
    for index in range(3):
        (twin / "samples" / f"{index:06d}.png").unlink(missing_ok=True)
    memory_of.cache_clear()  # another process remembers none of them
    again = Run.open(twin)
    generate(again)
    for row in borrowed.samples():
        if row.made:
            assert (twin / row.image).read_bytes() == borrowed.path(row.image).read_bytes()


def test_measure_and_report_take_borrowed_pairs(borrowed: Run) -> None:
    measure(borrowed)
    page = report(borrowed).read_text()
    assert "crack" in page
    # The row of pictures: what the reference's weight does, all else equal.
    assert "generator.settings.scale" in page and "scale = 0.5" in page
    assert len(list(borrowed.path("report").glob("sweep-*.jpg"))) == 4
    assert "Where the defect&#39;s words acted" in page and "&#34;crack&#34; in &#34;a photo of a crack&#34;" in page
    assert borrowed.path("report", "attention.jpg").is_file()
    assert "report/sweep-00-" in borrowed.path("report.md").read_text()


def test_the_sweep_changes_one_setting_and_is_painted_once(borrowed: Run, tmp_path: Path) -> None:
    twin = tmp_path / "r"
    shutil.copytree(borrowed.folder, twin)
    run = Run.open(twin)
    tree = json.loads(run.path("sweep.json").read_text())
    plan = run.plan()
    assert tree["setting"] == "scale" and [(r["product"], r["defect"]) for r in tree["rows"]] == list(
        dict.fromkeys((line.product, line.defect) for line in plan)
    )
    for row in tree["rows"]:
        assert [one["value"] for one in row["pictures"]] == [0.0, 0.5, 1.0]
        made = [run.path(one["image"]).read_bytes() for one in row["pictures"]]
        assert len(set(made)) == 3, "the reference's weight changes nothing"
    before = {path: path.stat().st_mtime_ns for path in run.path("sweep").iterdir()}
    generate(run)
    assert {path: path.stat().st_mtime_ns for path in run.path("sweep").iterdir()} == before
    run.path("sweep.json").unlink()  # killed before it was written
    generate(Run.open(twin))
    assert json.loads(run.path("sweep.json").read_text()) == tree
    for path in before:
        assert path.read_bytes() == borrowed.path("sweep", path.name).read_bytes()


def test_where_words_acted_is_recorded_once_for_each_type(borrowed: Run, tmp_path: Path) -> None:
    twin = tmp_path / "r"
    shutil.copytree(borrowed.folder, twin)
    run = Run.open(twin)
    rows, plan = word_maps(run), run.plan()
    made = {row.index for row in run.samples() if row.made}
    first: dict[tuple[str, str], int] = {}
    for line in plan:
        if line.index in made:
            first.setdefault((line.product, line.defect), line.index)
    assert {(row.product, row.defect): row.index for row in rows} == first
    for row in rows:
        normal, image, heat = (images.read(row.files(run)[what]) for what in ("normal", "image", "map"))
        mask = images.read_mask(row.files(run)["mask"], image.shape)
        assert row.words == row.defect and row.words in row.prompt and 0 <= row.weakest < row.strongest <= 1
        assert normal.shape == image.shape and mask.any() and (normal != image)[mask].any()
        assert heat.shape == (8, 8) and {heat.min(), heat.max()} == {0, 255}
    before = {path.name: path.read_bytes() for path in run.path("attention").iterdir()}
    stamps = {path: path.stat().st_mtime_ns for path in run.path("attention").iterdir()}
    samples = {path.name: path.read_bytes() for path in run.path("samples").iterdir()}
    generate(run)
    assert {path: path.stat().st_mtime_ns for path in run.path("attention").iterdir()} == stamps
    run.path("attention.json").unlink()  # killed before it was written
    assert word_maps(run) == []
    generate(Run.open(twin))
    assert word_maps(run) == rows
    assert {path.name: path.read_bytes() for path in run.path("attention").iterdir()} == before
    assert {path.name: path.read_bytes() for path in run.path("samples").iterdir()} == samples
    run.path("attention", f"{rows[0].index:06d}.map.png").unlink()
    section = attention_section(run)
    assert section is not None and len(section.sheets[0].rows) == len(rows) - 1  # what is left is shown


def test_the_file_that_training_starts_from_is_part_of_it(borrowed: Run, backbone_folder: Path, tmp_path: Path) -> None:
    """Other contents train anew; a file that is gone, and settings that only sampling reads, do not."""
    (adapter := tmp_path / "adapter").mkdir()
    shutil.copy(borrowed.path("weights/all/adapter.safetensors"), adapter)
    table = borrowed.config.model_dump(mode="json")
    table["generator"] = {"name": "hybrid", "settings": {"sga": str(adapter)}}
    table["train"] |= {"steps": 1}
    run = Run.create(tmp_path / "run", load_config(None, table))
    back = Backbone.load(str(backbone_folder), dtype="float32")

    def trained(opened: Run) -> bool:
        return is_trained(opened, train_inputs(opened, open_dataset(opened), back))

    train(run)
    assert trained(run)
    table["generator"]["settings"] |= {"semantic": {"scale": 0.5}, "spatial": {"start": "shot", "strength": 0.3}}
    turned = Run.create(run.folder, load_config(None, table))
    assert trained(turned)
    with (adapter / "adapter.safetensors").open("ab") as file:
        file.write(b" ")
    assert not trained(turned)
    shutil.rmtree(adapter)
    assert trained(turned)
    table["generator"]["settings"]["semantic"]["prompt"] = "a {defect}"
    assert not trained(Run.create(run.folder, load_config(None, table)))


@pytest.mark.parametrize("part, name", [("spatial", "controlnet_inpaint"), ("semantic", "cross_modal")])
def test_a_hybrid_knows_what_its_parts_only_sample_with(part: str, name: str) -> None:
    hybrid, plugin = get("generators", "hybrid"), get("generators", name)
    for output in ("train", "generate"):
        of_part = {
            key.removeprefix(f"{part}."): value
            for key, value in hybrid.affecting(hybrid.Settings(), output).items()
            if key.startswith(f"{part}.")
        }
        assert of_part == plugin.affecting(plugin.Settings(), output) != {}


def plan_of(run: Run, **changes: Any) -> list[PlanLine]:
    config = run.config.model_copy(update={"generate": run.config.generate.model_copy(update=changes)})
    return make_plan(config, open_dataset(run))


def test_whose_look_a_pair_gets(borrowed: Run) -> None:
    some = {"transfer": [], "count": 6}
    for line in plan_of(borrowed, reference="shot", **some):
        assert line.reference == line.shot
    drawn = {line.reference for line in plan_of(borrowed, reference="random", **some)}
    assert len(drawn) == 6, "both shots of each of the three defect types are drawn"
    one = "magnet/test/chip/000.png"
    assert {line.reference for line in plan_of(borrowed, reference=one, **some)} == {one}
    wrong = plan_of(borrowed, reference={"crack": "chip", "bend": one}, **some)
    for line in wrong:
        defect = {"crack": "chip", "bend": "chip", "chip": "chip"}[line.defect]
        assert line.reference.split("/")[2] == defect
    plain = plan_of(borrowed, reference="shot", **some)
    for name in ("shot", "pose", "normal", "seed"):
        assert [getattr(a, name) for a in wrong] == [getattr(b, name) for b in plain], (
            "another reference changes nothing else"
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": "crak"}, "'crak' is none of shot, nearest, random"),
        (
            {"reference": {"crak": "nearest"}},
            "generate.reference: there is no defect type 'crak'; did you mean 'crack'?",
        ),
        (
            {"transfer": [{"from": "magnet", "defect": "rust"}]},
            "'magnet' has no shots of 'rust'; there are magnet: chip",
        ),
        ({"transfer": [{"from": "magnet", "defect": "crack", "onto": "bolt"}]}, "no product 'bolt' to paint on"),
        ({"transfer": [{"from": "magnet", "defect": "crack", "onto": "magnet"}]}, "has shots of 'crack' of its own"),
        ({"prompt": "a purple crack"}, "unknown: purple"),
    ],
)
def test_what_cannot_be_planned_is_said(borrowed: Run, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(borrowed, **changes)
    assert said in str(caught.value)


def test_what_is_borrowed_cannot_be_screened(borrowed: Run) -> None:
    screened = borrowed.config.screen.model_copy(update={"enabled": True})
    with pytest.raises(ConfigError, match="compares with shots, and none of 'screw' shows 'crack'"):
        make_plan(borrowed.config.model_copy(update={"screen": screened}), open_dataset(borrowed))


@pytest.mark.parametrize("loan", [{"from": "a"}, {"defect": "b"}, {"from": "a", "defect": "b", "to": "c"}])
def test_a_loan_is_written_whole(loan: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="generate.transfer"):
        load_config(None, {"generate.transfer": loan})


def test_a_sentence_decides_kind_place_and_size(borrowed: Run) -> None:
    from flawsmith.data.masks.poses import apply_pose_mask

    lines = plan_of(borrowed, prompt="a small crack on the magnet, near the top left", count=5, transfer=[])
    assert [(line.product, line.defect, line.appearance) for line in lines] == [("magnet", "crack", "small")] * 5
    shots = {example.id: example for example in load_split(borrowed).shots}
    for line in lines:
        assert line.pose is not None
        mask = read_label(shots[line.shot], (128, 128))
        ys, xs = np.nonzero(apply_pose_mask(mask, line.pose, (128, 128)))
        box = (xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2
        assert max(box) < 0.5 * 128, "not near the top left"
        assert 0.05 * 128 < max(np.ptp(xs), np.ptp(ys)) + 1 < 0.19 * 128, "not small"
    config = borrowed.config.model_copy(
        update={"generate": borrowed.config.generate.model_copy(update={"prompt": "균열"})}
    )
    assert set(counts(config, load_split(borrowed))) == {("magnet", "crack"), ("screw", "crack")}
