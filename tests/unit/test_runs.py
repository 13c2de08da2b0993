"""run/folder.py: a run folder is started, opened again, and refuses to be anything else."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from flawsmith import files, leftovers
from flawsmith.config import Config, load_config
from flawsmith.errors import ConfigError, RunError
from flawsmith.files import read_json, read_lines
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.records import Sample, append_records

OTHER = load_config(
    None,
    {
        "seed": 5,
        "train.steps": 3,
        "data.normal": ["good"],
        "generate.count": {"crack": 2},
        "data.root": str(Path.cwd()),
    },
)


def sample(index: int, *, attempt: int = 0) -> Sample:
    return Sample(
        index=index,
        role="sample",
        status="made",
        generator="perlin",
        product="screw",
        defect="dent",
        normal="good/0.png",
        shot="dent/0.png",
        seed=index,
        attempt=attempt,
        paint="residual",
        windows=(),
        painted_share=0.5,
        area=7,
    )


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_a_run_is_started_and_opened(tmp_path: Path):
    run = Run.create(tmp_path / "deep" / "run", OTHER)
    assert names(run.folder) == {"config.json", "manifest.json"}
    again = Run.open(str(run.folder))
    assert again.config == OTHER == run.config and again.folder == run.folder
    assert run.path("weights", "a.safetensors") == run.folder / "weights" / "a.safetensors"
    manifest = read_json(run.path("manifest.json"))
    assert manifest["stages"] == {} and manifest["packages"]["numpy"] and manifest["python"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", manifest["started"])


def test_created_again_it_keeps_what_it_has_done(tmp_path: Path):
    run = Run.create(tmp_path / "run", Config())
    run.finish("train", "abc", {}, steps=3)
    started = read_json(run.path("manifest.json"))["started"]
    stamp = run.path("config.json").stat().st_mtime_ns
    again = Run.create(tmp_path / "run", Config())
    assert again.stage_hash("train") == "abc" and read_json(run.path("manifest.json"))["started"] == started
    assert run.path("config.json").stat().st_mtime_ns == stamp, "the same configuration is not written again"


def test_another_configuration_is_taken_over(tmp_path: Path):
    Run.create(tmp_path, Config()).finish("train", "abc", {})
    again = Run.create(tmp_path, OTHER)
    assert Run.open(tmp_path).config == OTHER and again.stage_hash("train") == "abc"


def test_stages_are_finished_and_forgotten(tmp_path: Path):
    run = Run.create(tmp_path, Config())
    assert run.stage_hash("train") is None and run.record("train") == {}
    inputs = {"settings": {"seed": 0}, "content": {"shots": "f00d"}}
    run.begin("train", "a1", inputs)
    assert run.stage_hash("train") is None and run.record("train") == {"hash": "a1", "inputs": inputs}
    run.finish("train", "a1", inputs, generator="perlin", backbone=None)
    run.finish("generate", "b2", {})
    assert run.stage_hash("train") == "a1" and run.record("train")["generator"] == "perlin"
    assert set(run.record("train")) == {"hash", "inputs", "finished", "generator", "backbone"}
    assert run.record("train")["inputs"] == inputs
    run.finish("train", "a3", {})
    assert run.stage_hash("train") == "a3" and run.stage_hash("generate") == "b2"
    run.forget("train", "never")
    assert run.stage_hash("train") is None and run.stage_hash("generate") == "b2"
    assert read_lines(run.path("log.jsonl"))[-1]["stage"] == "train"


def test_the_log_has_the_time(tmp_path: Path):
    run = Run.create(tmp_path, Config())
    run.log(stage="train", seconds=1.5)
    run.log(stage="generate")
    rows = read_lines(run.path("log.jsonl"))
    assert [r["stage"] for r in rows] == ["train", "generate"] and all(r["at"].endswith("Z") for r in rows)


def test_samples_of_all_shards_by_index(tmp_path: Path):
    run = Run.create(tmp_path, Config())
    assert run.samples() == []
    append_records(run.path("samples.1-of-2.jsonl"), [sample(3), sample(1)])
    append_records(run.path("samples.0-of-2.jsonl"), [sample(2), sample(0)])
    with open(run.path("samples.0-of-2.jsonl"), "ab") as file:
        file.write(b'{"index": 4, "n"')
    assert [row.index for row in run.samples()] == [0, 1, 2, 3]
    append_records(run.path("samples.1-of-2.jsonl"), [sample(1, attempt=2)])
    assert run.samples()[1] == sample(1, attempt=2), "the later line counts"
    assert run.controls() == []


# ---- what is refused ----------------------------------------------------------------------------


def test_a_folder_that_holds_something_else(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match="not empty and not a flawsmith run; name another folder with --out"):
        Run.create(tmp_path, Config())
    assert names(tmp_path) == {"thesis.txt"}
    with pytest.raises(RunError, match="a file stands there; name another folder with --out"):
        Run.create(tmp_path / "thesis.txt", Config())


def test_a_start_that_was_killed_at_once_can_be_repeated(tmp_path: Path):
    (tmp_path / f".config.json.{leftovers._HOST}-4194304.part").write_text("{")
    Run.create(tmp_path, Config())
    assert names(tmp_path) == {"config.json", "manifest.json"}


def test_temporary_files_of_killed_writers_go_and_others_stay(tmp_path: Path):
    run = Run.create(tmp_path, Config())
    (tmp_path / "samples").mkdir()
    dead = tmp_path / "samples" / f".000001.png.{leftovers._HOST}-4194304.part"
    alive = tmp_path / "samples" / f".000002.png.{leftovers._HOST}-{os.getpid()}.part"
    for again in (Run.open, lambda folder: Run.create(folder, run.config)):
        dead.write_text("x")
        alive.write_text("x")
        again(tmp_path)
        assert not dead.exists() and alive.exists()


def test_a_run_whose_configuration_was_deleted_goes_on(tmp_path: Path):
    run = Run.create(tmp_path, OTHER)
    run.finish("train", "abc", {})
    run.path("config.json").unlink()
    with pytest.raises(RunError, match=r"flawsmith run CONFIG --out"):
        Run.open(tmp_path)
    assert Run.create(tmp_path, OTHER).stage_hash("train") == "abc", "what the sentence says to do works"
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(RunError, match="not empty and not a flawsmith run"):
        Run.create(tmp_path / "page", OTHER)


def test_a_folder_that_is_no_run(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(RunError, match=r"not a flawsmith run \(config\.json is missing\); start one with"):
            Run.open(folder)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("content", ["{", "[1]", '{"seed": -1}', '{"sed": 1}', '"x"'])
def test_a_damaged_configuration(tmp_path: Path, content: str):
    run = Run.create(tmp_path, Config())
    run.path("config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json.*flawsmith run CONFIG --out .* writes it anew"):
        Run.open(tmp_path)
    Run.create(tmp_path, OTHER)
    assert Run.open(tmp_path).config == OTHER


@pytest.mark.parametrize("content", ["{", "[]", '{"stages": 3}', "{}"])
def test_a_damaged_manifest(tmp_path: Path, content: str):
    run = Run.create(tmp_path, Config())
    run.path("manifest.json").write_text(content)
    with pytest.raises(RunError, match=r"manifest\.json: .*delete it and run again"):
        run.stage_hash("train")
    run.path("manifest.json").unlink()
    assert run.stage_hash("train") is None
    run.finish("train", "a", {})
    assert run.stage_hash("train") == "a"


@pytest.mark.parametrize(
    "overrides, wanted",
    [
        ({"generator.name": "perlim"}, r"generator\.name: generator 'perlim' is unknown; did you mean 'perlin'"),
        ({"measure.metrics": ["kidd"]}, r"measure\.metrics: metric 'kidd' is unknown; did you mean 'kid'"),
        ({"prove.detectors": ["prob"]}, r"prove\.detectors: detector 'prob' is unknown; did you mean 'probe'"),
        ({"prove.settings": {"prob": {}}}, r"prove\.settings: detector 'prob' is unknown; did you mean 'probe'"),
        ({"prove.against": ["crop"]}, r"prove\.against: generator 'crop' is unknown"),
        ({"screen.enabled": True, "screen.filters": ["sem"]}, r"screen\.filters: filter 'sem' .* mean 'seam'"),
        ({"export.formats": ["mvtec", "mvtek"]}, r"export\.formats: export 'mvtek' is unknown; did you mean 'mvtec'"),
        ({"export.settings": {"mvtek": {}}}, r"export\.settings: export 'mvtek' is unknown; did you mean 'mvtec'"),
    ],
)
def test_an_unknown_plugin_is_said_before_anything_is_written(tmp_path: Path, overrides: dict, wanted: str):
    with pytest.raises(ConfigError, match=wanted):
        Run.create(tmp_path / "run", load_config(None, overrides))
    assert not (tmp_path / "run").exists()


def test_the_machine_is_json():
    found = machine()
    assert json.loads(json.dumps(found)) == found
    assert found["processors"] >= 1 and found["packages"]["torch"] != "absent"


def test_a_run_of_other_photographs_is_refused_before_anything_is_written(tmp_path: Path):
    def photographs(root: Path, **contents: str) -> Config:
        for name, content in contents.items():
            path = root / "good" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return load_config(None, {"data.root": str(root)})

    boards = photographs(tmp_path / "boards", a="board", b="another board")
    run = Run.create(tmp_path / "run", boards)
    rows = [
        {"id": f"good/{path.name}", "image": path.as_posix(), "files": [files.file_state(path)]}
        for path in sorted((tmp_path / "boards" / "good").iterdir())
    ]
    files.write_json(
        run.path("data.json"),
        {"root": boards.data.root.as_posix(), "notes": ["a note"], "ranges": {}, "shots": [], "normals": rows},
    )
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    leather = photographs(tmp_path / "leather", c="leather", d="more leather")
    alike = photographs(tmp_path / "alike", a="the same names, other photographs", b="as in every MVTec product")
    for other in (leather, alike):
        words = f"run: is a run of the photographs of {tmp_path / 'boards'}, and none of them is in {other.data.root}"
        with pytest.raises(RunError, match=re.escape(words)):
            Run.create(run.folder, other)
        assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
    photographs(tmp_path / "boards", e="an added board")
    moved = photographs(tmp_path / "moved", a="board, changed since", b="another board")
    above, below = (load_config(None, {"data.root": str(root)}) for root in (tmp_path, tmp_path / "boards" / "good"))
    absent = load_config(None, {"data.root": str(tmp_path / "absent")})
    changed = load_config(None, {"data.root": str(boards.data.root), "seed": 4})
    for same in (changed, moved, above, below, absent, boards):
        assert Run.create(run.folder, same).config == same
