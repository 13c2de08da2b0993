"""The quality gate on a small set: verdicts, rounds, kills, replay, and a gate that lets nothing pass."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import flawsmith as fs
from flawsmith import cli
from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.evaluation.arms import made_of
from flawsmith.exports.export import exported
from flawsmith.files import file_digest
from flawsmith.run.records import Verdict, read_records, write_records
from flawsmith.screening.gate import Gate
from flawsmith.screening.replay import replay
from flawsmith.screening.screen import screen, screened
from flawsmith.synthesis.generate import Shard, generate
from flawsmith.testing import tiny_extractor


@pytest.fixture(scope="module")
def settings(small_settings: dict[str, Any]) -> dict[str, Any]:
    """Real shots pasted, one product, screened."""
    return small_settings | {
        "data.products": ["magnet"],
        "data.shots": 3,
        "generator.name": "crop_paste",
        "generate.batch": 2,
        "generate.count": 4,
        "screen.enabled": True,
        "screen.thresholds": {"seam": "off"},
    }


@pytest.fixture(scope="module")
def screened_once(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """A finished run whose gate asked for no more samples. Copy it, do not write it."""
    run = opened(tmp_path_factory.mktemp("once") / "run", settings, screen__rounds=0)
    fs.run_all(run)
    return run


@pytest.fixture(scope="module")
def halved(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """A finished run of which half was rejected, and made again in two rounds. Copy it, do not write it."""
    run = opened(tmp_path_factory.mktemp("halved") / "run", settings, screen__thresholds=HALF, screen__rounds=2)
    fs.run_all(run)
    return run


def copied(run: fs.Run, folder: Path) -> fs.Run:
    """Return a copy of a run in another folder."""
    return fs.Run.open(Path(shutil.copytree(run.folder, folder)))


def opened(folder: Path, settings: dict[str, Any], **changes: Any) -> fs.Run:
    table = settings | {key.replace("__", "."): value for key, value in changes.items()}
    return fs.Run.create(folder, load_config(None, table))


def verdicts(path: Path) -> list[Verdict]:
    return read_records(path, Verdict)


def everything(folder: Path) -> dict[str, bytes]:
    names = (
        "plan.jsonl",
        "samples.jsonl",
        "scores.jsonl",
        "rounds.json",
        "samples/*",
        "controls/*",
        "gate/*",
        "repaired/*",
    )
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for name in names for p in sorted(folder.glob(name))}
    return found | {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.glob("export/**/*.png"))}


HALF = {"realism.tokens": {"keep": 0.5}, "seam": "off"}
"""Half of every defect type is rejected, whatever it looks like."""


def test_screened_samples_alone_go_on(settings: dict[str, Any], tmp_path: Path):
    run = opened(tmp_path / "run", settings, screen__thresholds=HALF, screen__rounds=0)
    fs.run_all(run)
    rows = verdicts(run.path("scores.jsonl"))
    assert len(rows) == sum(row.made for row in run.samples())
    kept = {row.name for row in rows if row.kept}
    assert 0 < len(kept) < len(rows)
    for row in rows:
        assert row.kept == (not row.reasons)
        for reason in row.reasons:  # a verdict is a function of the numbers that are published
            score = row.scores[reason.score]
            assert score is not None and score <= row.thresholds[reason.score] and reason.text
    made = {f"samples/{name}.png" for name in kept}
    assert {row.image for row in run.kept()} == made
    assert {example.id for example in exported(run) if example.defect} == made
    assert {made.example.id for made in made_of(run, "magnet")[0]} == made
    fs.measure(run)
    measured = json.loads(run.path("metrics.json").read_text())["products"]["magnet"]
    assert sum(defect["made"] for defect in measured.values()) == len(kept)
    page, text = run.path("report.html").read_text(), run.path("report.md").read_text()
    assert "Screening" in page and "Rejected: the damage is unlike" in page and "Yield" in page
    assert "rejected: the damage is unlike" in text and list(run.path("report").glob("rejected-*.jpg"))
    # All rejected pictures are still there, and the same again does nothing.
    assert all(run.path(row.image).is_file() for row in run.samples() if row.made)
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*") if p.is_file() and p.name != "log.jsonl"}
    fs.run_all(opened(run.folder, settings, screen__thresholds=HALF, screen__rounds=0, measure__enabled=True))
    fs.run_all(opened(run.folder, settings, screen__thresholds=HALF, screen__rounds=0))
    assert all(before[p] == p.stat().st_mtime_ns for p in before if p.parts[-2] in ("samples", "gate", "controls"))


def test_a_verdict_that_was_deleted_is_given_again(screened_once: fs.Run, tmp_path: Path):
    """A damaged line is to be deleted, says its sentence: that may not take a sample out of the export."""
    run = copied(screened_once, tmp_path / "run")
    before = everything(run.folder)
    lines = run.path("scores.jsonl").read_text().splitlines(keepends=True)
    run.path("scores.jsonl").write_text("".join([lines[0], '{"name": 3}\n', *lines[2:]]))
    with pytest.raises(RunError, match=r"scores\.jsonl: line 2 is no Verdict .*; delete that line and run again"):
        fs.run_all(run)
    run.path("scores.jsonl").write_text("".join([lines[0], *lines[2:]]))
    fs.run_all(run)
    assert everything(run.folder) == before


def test_screening_leaves_generating_alone(settings: dict[str, Any], tmp_path: Path):
    plain = opened(tmp_path / "run", settings, screen__enabled=False)
    fs.run_all(plain)
    stamp, before = plain.stage_hash("generate"), {p: p.stat().st_mtime_ns for p in plain.path("samples").iterdir()}
    assert plain.samples_hash() == stamp and not plain.path("scores.jsonl").exists()
    run = opened(tmp_path / "run", settings, screen__rounds=0)
    with pytest.raises(RunError, match="not screened yet"):
        exported(run)
    fs.run_all(run)
    assert run.stage_hash("generate") == stamp and run.samples_hash() != stamp
    assert {p: p.stat().st_mtime_ns for p in run.path("samples").iterdir()} == before
    # And back: what was judged in between hides nothing.
    again = opened(tmp_path / "run", settings, screen__enabled=False)
    fs.run_all(again)
    assert again.verdicts() is None and len(again.kept()) == sum(row.made for row in again.samples())
    assert {p: p.stat().st_mtime_ns for p in run.path("samples").iterdir()} == before


def test_what_lacks_is_made_again(settings: dict[str, Any], halved: fs.Run, tmp_path: Path):
    """Rounds give other seeds, stop at their limit, and are taken back when the gate is another."""
    run = copied(halved, tmp_path / "run")
    plan = run.plan()
    rounds = [line.round for line in plan]
    assert rounds == sorted(rounds) and set(rounds) == {0, 1, 2}
    assert len({line.seed for line in plan}) == len(plan)
    assert [line.index for line in plan] == list(range(len(plan)))
    first = [line for line in plan if not line.round]
    assert len(first) == 8 and len(run.controls()) == 4  # controls are of the first round
    told = json.loads(run.path("rounds.json").read_text())["rounds"]
    assert len(told) == 2 and sum(row[2] for row in told[0]) == rounds.count(1)
    assert "planned again in 2 rounds" in run.path("report.md").read_text()
    fewer = opened(tmp_path / "run", settings, screen__thresholds=HALF, screen__rounds=1)
    fs.run_all(fewer)
    assert fewer.plan() == [line for line in plan if line.round < 2]
    assert len(fewer.samples()) == rounds.count(0) + rounds.count(1)
    other = opened(
        tmp_path / "run", settings, screen__thresholds=HALF | {"realism.tokens": {"keep": 1}}, screen__rounds=2
    )
    fs.run_all(other)
    assert other.plan()[:8] == first
    assert not [p for p in other.path("samples").glob("*.png") if int(p.name[:6]) >= len(other.samples())]


def test_the_papers_way(settings: dict[str, Any], tmp_path: Path):
    """Twice as many are made, half are kept: as many as were asked for."""
    ways = {"realism.whole": {"keep": 0.5}} | {
        name: "off" for name in ("realism", "visible", "alignment", "duplicates")
    }
    changes = {"screen.thresholds": ways, "screen.times": 2, "screen.rounds": 0, "screen.filters": ["realism"]}
    run = opened(tmp_path / "run", settings | changes, generate__min_painted=0.0)
    fs.run_all(run)
    assert len(run.plan()) == 16
    by_defect: dict[str, list[tuple[float, bool]]] = {}
    for row in verdicts(run.path("scores.jsonl")):
        score = row.scores["realism.whole"]
        assert score is not None
        by_defect.setdefault(row.defect, []).append((score, row.kept))
    for found in by_defect.values():
        kept = [score for score, stands in found if stands]
        assert len(kept) == len(found) / 2 == 4
        assert min(kept) >= max(score for score, stands in found if not stands)


def test_a_kill_between_rounds_changes_nothing(
    settings: dict[str, Any], halved: fs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Stopped after every step of the rounds in turn, and with shards, the bytes are those of an untouched run."""
    changes: dict[str, Any] = {"screen__thresholds": HALF, "screen__rounds": 2}
    wanted = everything(halved.folder)

    files, rounds, stage = (
        import_module(f"flawsmith.{name}") for name in ("files", "run.screened", "screening.screen")
    )

    class Killed(BaseException):
        pass

    def dying(patch: pytest.MonkeyPatch, module: Any, name: str, calls: int, after: bool) -> None:
        """The n-th call of a function is the process's last, just before or just after it did its work."""
        real, left = getattr(module, name), [calls]

        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Killed
            found = real(*args, **kwargs)
            if left[0] == 0:
                raise Killed
            return found

        patch.setattr(module, name, call)

    run = opened(tmp_path / "killed", settings, **changes)
    for module, name, calls, after in (
        (rounds, "write_json", 1, False),
        (rounds, "write_json", 1, True),
        (stage, "write_scores", 1, False),
        (stage, "write_scores", 1, True),
        (files, "write_bytes", 9, False),
        (files, "write_bytes", 2, True),
    ):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dying(patch, module, name, calls, after)
            fs.run_all(fs.Run.open(run.folder))
    fs.run_all(fs.Run.open(run.folder))
    assert everything(run.folder) == wanted

    # By hand and in shards: the same plan, pictures and verdicts.
    shards = opened(tmp_path / "shards", settings, **changes)
    fs.train(shards)
    while True:
        generate(shards, Shard(0, 2))
        generate(shards, Shard(1, 2))
        if not screened(shards):
            break
    for name in ("plan.jsonl", "scores.jsonl", "rounds.json"):
        assert shards.path(name).read_bytes() == wanted[name], name
    for path in shards.path("samples").iterdir():
        assert path.read_bytes() == wanted[f"samples/{path.name}"]


def test_rejected_pictures_may_go(settings: dict[str, Any], tmp_path: Path):
    changes: dict[str, Any] = {"screen__thresholds": HALF, "screen__rounds": 1, "screen__keep_rejected": False}
    run = opened(tmp_path / "run", settings, **changes)
    fs.run_all(run)
    there = {f"samples/{path.name}" for path in run.path("samples").iterdir()}
    assert there == {name for row in run.kept() for name in (row.image, row.mask)}
    assert (
        len(verdicts(run.path("scores.jsonl"))) > len(run.kept())
        and "were deleted" in run.path("report.md").read_text()
    )
    stamp = run.path("scores.jsonl").stat().st_mtime_ns
    fs.run_all(run)
    assert run.path("scores.jsonl").stat().st_mtime_ns == stamp and len(list(run.path("samples").iterdir())) == len(
        there
    )
    # A kept picture is lost: everything that is missing is made again and judged together, with the same end.
    scores, lost = run.path("scores.jsonl").read_bytes(), run.path(run.kept()[0].image)
    content = lost.read_bytes()
    lost.unlink()
    fs.run_all(run)
    assert lost.read_bytes() == content and run.path("scores.jsonl").read_bytes() == scores
    assert {f"samples/{path.name}" for path in run.path("samples").iterdir()} == there


def test_a_gate_that_rejects_everything(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    names = ("realism.tokens", "realism.window", "visible.tokens", "seam")
    strict = {name: {"absolute": 9.0} for name in names}
    run = opened(tmp_path / "run", settings, screen__thresholds=strict, screen__rounds=1)
    with pytest.raises(RunError, match=r"rejected all \d+ samples") as told:
        fs.run_all(run)
    sentence = str(told.value)
    assert "\n" not in sentence and sentence.count(" because ") == 3 and "no damage is visible" in sentence
    assert not run.path("export").exists() and "Rejected" in run.path("report.html").read_text()
    with pytest.raises(RunError, match="rejected all"):
        fs.export(run)
    assert not run.path("export").exists()
    monkeypatch.setattr(sys, "argv", ["flawsmith", "screen", str(run.folder)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and "rejected all" in capsys.readouterr().err


def as_folder(run: fs.Run, folder: Path, *, normals: bool = True) -> Path:
    """The samples as somebody else might lay them out: defect type folders, the mask and the photograph beside each."""
    sources = {row["id"]: Path(row["image"]) for row in json.loads(run.path("data.json").read_text())["normals"]}
    for row in run.samples():
        if row.made:
            place = folder / row.defect
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(run.path(row.image), place)
            shutil.copy(run.path(row.mask), place)
            if normals:
                images.write(place / f"{row.index:06d}.normal.png", images.read(sources[row.normal]))
    return folder


def test_replay_gives_the_same_verdicts(
    halved: fs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = copied(halved, tmp_path / "run")
    wanted = run.path("scores.jsonl").read_bytes()
    folder = as_folder(run, tmp_path / "theirs")
    gate = Path(shutil.copytree(run.path("gate"), tmp_path / "gate"))
    for picture in list(folder.glob("*/*.png")):  # as a Mac leaves them beside files on a stick
        (picture.parent / f"._{picture.name}").write_bytes(b"\0\5\x16\7")
    assert "pictures kept" in replay(gate, folder)
    assert (folder / "replayed.jsonl").read_bytes() == wanted
    monkeypatch.setattr(sys, "argv", ["flawsmith", "screen", "--replay", str(run.folder), str(run.folder)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (0, None) and "pictures kept" in capsys.readouterr().out
    assert run.path("replayed.jsonl").read_bytes() == wanted and run.path("scores.jsonl").read_bytes() == wanted
    # Nobody knows the photographs: filters that need them fall back or abstain, and nothing else changes.
    replay(gate, as_folder(run, tmp_path / "bare", normals=False), out=tmp_path / "bare.jsonl")
    for row, before in zip(verdicts(tmp_path / "bare.jsonl"), verdicts(run.path("scores.jsonl")), strict=True):
        assert row.scores["alignment.inside"] is None and row.scores["visible.tokens"] is None
        assert row.scores["visible.tokens_all"] is not None and before.scores["visible.tokens_all"] is None
        assert row.scores["realism.tokens"] == before.scores["realism.tokens"]


def test_pictures_of_two_products_may_have_one_name(screened_once: fs.Run, tmp_path: Path):
    gate = Gate.load(screened_once.path("gate"))
    (fitted,) = gate.fitted_gates.values()
    replace(gate, fitted_gates={"left": fitted, "right": fitted}).save(tmp_path / "gate")
    one = next(row for row in screened_once.samples() if row.made)
    for product in ("left", "right"):
        place = tmp_path / "theirs" / product / one.defect
        place.mkdir(parents=True)
        shutil.copy(screened_once.path(one.image), place / "1.png")
        shutil.copy(screened_once.path(one.mask), place / "1.mask.png")
    replay(tmp_path / "gate", tmp_path / "theirs", out=tmp_path / "two.jsonl")
    named = [(row.product, row.name) for row in verdicts(tmp_path / "two.jsonl")]
    assert named == [(product, f"{product}/{one.defect}/1") for product in ("left", "right")]


def test_replay_refuses_what_it_cannot_judge(screened_once: fs.Run, tmp_path: Path):
    run = screened_once
    folder, gate = as_folder(run, tmp_path / "theirs"), run.path("gate")
    with pytest.raises(ConfigError, match=r"fitted with efficientnet-lite0 \(\w+\), not with tiny"):
        replay(gate, folder, extractor=tiny_extractor())
    with pytest.raises(RunError, match="holds no gate"):
        replay(tmp_path, folder)
    with pytest.raises(ConfigError, match="did you mean 'mvtec'"):
        replay(gate, folder, layout="mvtecc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture with a mask"):
        replay(gate, tmp_path / "empty")
    shutil.copytree(folder / "crack", tmp_path / "other" / "crak")
    with pytest.raises(ConfigError, match="did you mean 'crack'"):
        replay(gate, tmp_path / "other")
    next((folder / "crack").glob("*.mask.png")).unlink()
    with pytest.raises(DataError, match=r"has no mask; put \d+\.mask\.png beside it"):
        replay(gate, folder)
    assert not (folder / "replayed.jsonl").exists() and not (tmp_path / "other" / "replayed.jsonl").exists()


def test_a_label_that_does_not_fit_is_repaired(settings: dict[str, Any], tmp_path: Path):
    """The label of a sample is moved away: dropped as a rule; with repair it is fitted to the change again."""
    run = opened(tmp_path / "run", settings, screen__rounds=0, screen__filters=["alignment", "visible"])
    fs.train(run)
    generate(run)
    row = next(row for row in run.samples() if row.made)
    picture, true = images.read(run.path(row.image)), images.read_mask(run.path(row.mask), (128, 128))
    moved = np.roll(true, 64, axis=(0, 1))
    images.write_mask(run.path(row.mask), moved)
    Image.fromarray(picture).save(run.path(row.image), dpi=(300, 300))  # as a camera's own
    hashes = {"image_hash": file_digest(run.path(row.image)), "mask_hash": file_digest(run.path(row.mask))}
    noted = [replace(one, **hashes) if one == row else one for one in run.samples()]
    write_records(run.path("samples.jsonl"), noted)
    screen(run)
    verdict = next(one for one in verdicts(run.path("scores.jsonl")) if int(one.name) == row.index)
    assert [one.score for one in verdict.reasons][:2] == ["alignment.inside", "alignment.covered"]
    assert row.index not in [one.index for one in run.kept()]

    fixed = opened(
        run.folder, settings, screen__rounds=0, screen__filters=["alignment", "visible"], screen__repair=True
    )
    screen(fixed)
    kept = next(one for one in fixed.kept() if one.index == row.index)
    label = images.read_mask(fixed.path(kept.mask), (128, 128))
    assert kept.mask.startswith("repaired/") and kept.area == label.sum()
    assert (label & true).sum() / (label | true).sum() > 0.9
    assert np.array_equal(images.read_mask(run.path(row.mask), (128, 128)), moved)  # the old one stays
    # Judged again, by a gate that sees fainter changes: the labels that the run uses are still its own.
    mine = {file.name: file.read_bytes() for file in fixed.path("repaired").iterdir()}
    replace(Gate.load(fixed.path("gate")), visible=0.001).save(tmp_path / "gate")
    for gate in (tmp_path / "gate", fixed.path("gate")):
        replay(gate, fixed.folder)
        assert {file.name: file.read_bytes() for file in fixed.path("repaired").iterdir()} == mine
    assert fixed.path("replayed.jsonl").read_bytes() == fixed.path("scores.jsonl").read_bytes()
    assert {file.name: file.read_bytes() for file in fixed.path("replayed", "repaired").iterdir()} == mine
    normal = images.read(
        next(
            Path(e["image"]) for e in json.loads(run.path("data.json").read_text())["normals"] if e["id"] == row.normal
        )
    )
    after = images.read(fixed.path(kept.image))
    assert np.array_equal(after[~label], normal[~label]) and np.array_equal(after[label], picture[label])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"screen.filters": ["realsm"]}, "screen.filters: filter 'realsm' is unknown; did you mean 'realism'"),
        ({"screen.thresholds": {"realism.token": "off"}}, "did you mean 'realism.tokens'"),
        ({"screen.thresholds": {"sem": "off"}}, "did you mean 'seam'"),
        ({"screen.settings": {"defect_typ": {}}}, "did you mean 'defect_type'"),
        ({"screen.settings": {"realism": {"neighbors": 2}}}, "did you mean 'neighbours'"),
        ({"screen.repair": True, "screen.filters": ["realism"]}, "screen.repair needs the filter alignment"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], sentence: str, settings: dict[str, Any], tmp_path: Path):
    with pytest.raises(ConfigError, match=sentence):
        fs.run_all(opened(tmp_path / "run", settings | changes))
    assert not (tmp_path / "run" / "scores.jsonl").exists()


def test_two_rules_for_one_score_are_refused(settings: dict[str, Any]):
    for rule in ({"keep": 0.5, "absolute": 1}, {"keep": 0}, {"quantile": 0.7}, {}, "of"):
        with pytest.raises(ConfigError, match="screen.thresholds"):
            load_config(None, settings | {"screen.thresholds": {"seam": rule}})
