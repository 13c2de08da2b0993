"""What the verbs end with: sentences for people, one JSON object for scripts; and what a bug report needs."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import flawsmith as fs
from flawsmith import cli
from flawsmith.cli.closing import Closing, closing_of, closing_of_run
from flawsmith.config import overridden
from flawsmith.files import write_json
from flawsmith.korean import in_korean
from flawsmith.version import VERSION


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run the command line here; return what it printed on stdout."""
    monkeypatch.setattr(sys, "argv", ["flawsmith", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code or 0) == code
    return capsys.readouterr().out


def test_every_stage_says_what_was_made_and_what_to_open(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "data.products": ["screw"],
        "generator.name": "crop_paste",
        "generate.count": 2,
        "measure.enabled": False,
        "prove.enabled": False,
    }
    folder = tmp_path / "run"
    fs.Run.create(folder, fs.load_config(None, small_config | settings))
    assert said(monkeypatch, capsys, "train", str(folder)).splitlines() == [
        f"train: crop_paste is ready, 1 file in {folder / 'weights'}",
        f"next: flawsmith generate {folder}",
    ]
    half = json.loads(said(monkeypatch, capsys, "generate", str(folder), "--shard", "1/9", "--json"))
    assert half["verb"] == "generate" and not half["finished"] and half["files"] == []
    whole = json.loads(said(monkeypatch, capsys, "generate", str(folder), "--json"))
    run = fs.Run.open(folder)
    assert (whole["samples"], whole["controls"], whole["given_up"]) == (
        len(run.kept()),
        len(run.controls()),
        len(run.samples()) - len(run.kept()),
    )
    assert whole["files"] == [(folder / "samples").as_posix()]
    assert whole["next"] == ["flawsmith", "export", str(folder)]  # measure and prove are switched off
    exported = json.loads(said(monkeypatch, capsys, "export", str(folder), "--json"))
    there = len([path for path in (folder / "export/mvtec").rglob("*.png") if "ground_truth" not in path.parts])
    assert sum(exported["counts"]["mvtec"].values()) == there
    report = said(monkeypatch, capsys, "report", str(folder)).splitlines()
    assert report == [
        f"report: the samples in {folder / 'samples'} are not proven, for prove.enabled = false keeps the proof out",
        f"open: {folder / 'report.html'}",
        f"open: {folder / 'export/mvtec'}",
        f"next: flawsmith run {folder} --set prove.enabled=true",
    ]
    assert all(Path(line.removeprefix("open: ")).exists() for line in report[1:3])


def test_a_proof_ends_with_its_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fs.Run.create(tmp_path / "run", fs.load_config(None, {"prove.enabled": True}))
    closing = closing_of("prove", run)
    assert closing.sentence == "there is no arm with samples, so there is no verdict"
    assert closing.files == (run.path("proof.json"),) and closing.following[1] == "export"
    assert closing_of("generate", run).sentence.startswith("this shard is done")
    report = run.path("report.html")
    monkeypatch.setattr("flawsmith.reporting.verdict.verdict_of", lambda run: "The samples help.")
    for asked, alone in ((run.config, False), (overridden(run.config, {"generator.name": "crop_paste"}), True)):
        proven = fs.Run.create(run.folder, asked)
        for sentence in (closing_of("prove", proven).sentence, closing_of_run("run", report).sentence):
            assert sentence.splitlines()[0] == "The samples help."
            assert ("crop_paste, which it compares with by default" in sentence) == alone


@pytest.mark.parametrize(
    ("settings", "shots", "missing"),
    [
        ({}, [{"id": "a.png"}], True),
        ({"export.real": "shots"}, [{"id": "a.png"}], False),
        ({"prove.enabled": False}, [{"id": "a.png"}], False),
        ({}, [], False),
    ],
)
def test_an_export_says_where_it_is_less_than_what_was_proven(
    settings: dict[str, Any], shots: list[Any], missing: bool, tmp_path: Path
) -> None:
    run = fs.Run.create(tmp_path / "run", fs.load_config(None, settings))
    write_json(run.path("data.json"), {"shots": shots})
    run.finish("export", "x", {}, counts={"yolo": {"good": 3, "dent": 4}})
    sentence = closing_of("export", run).sentence
    assert sentence.startswith("yolo (7 pictures)")
    assert ("add them with --set export.real=shots" in sentence) == missing == ("real shots" in sentence)
    spoken = in_korean(sentence)
    assert ("실제 샷 없이" in spoken) == missing and "proof" not in spoken
    closing = closing_of_run("run", run.path("report.html")).sentence
    assert ("there is none" in closing) == (not shots) and ("prove.enabled" in closing) == ("prove.enabled" in settings)
    assert re.search("[가-힣]", in_korean(closing)) and "proven" not in in_korean(closing)


def test_check_for_scripts(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "my parts.toml"
    config.write_text(f'[data]\nroot = "{small_config["data.root"]}"\nproducts = ["screw"]\n', "utf-8")
    sets = ["--set", "prove.enabled=false", "--json"]
    found = json.loads(said(monkeypatch, capsys, "check", str(config), *sets))
    assert found["ok"] and found["layout"] == "mvtec" and not found["errors"]
    assert found["next"] == ["flawsmith", "run", str(config), "--out", "runs/my parts", *sets[:2]]
    assert {"", "bend"} <= {one["defect"] for one in found["defects"]}
    wrong = json.loads(
        said(monkeypatch, capsys, "check", str(config), "--set", "data.products=['gear']", *sets, code=1)
    )
    assert not wrong["ok"] and wrong["errors"] and wrong["next"] == []


def test_list_for_scripts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    known = json.loads(said(monkeypatch, capsys, "list", "--json"))
    assert "patch_synthesis" in known["generators"] and "mvtec" in known["exports"]
    assert all(summary for family in known.values() for summary in family.values())


def test_the_version_and_what_a_bug_report_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setenv("FLAWSMITH_PLUGINS", "generators.mine=mine:Mine")
    monkeypatch.setenv("A_SECRET", "password")
    assert said(monkeypatch, capsys, "--version") == f"flawsmith {VERSION}\n"
    lines = said(monkeypatch, capsys, "--version", "-v").splitlines()
    told = dict(line.split(": ", 1) for line in lines)
    assert told["flawsmith"].startswith(VERSION) and str(Path(fs.__file__).parent) in told["flawsmith"]
    assert torch.__version__ in told["torch"] and "numpy" in told and "processor" in told
    assert told["FLAWSMITH_PLUGINS"] == "generators.mine=mine:Mine" and "password" not in str(told)
    assert any(name.startswith("card") for name in told)
    monkeypatch.setattr(sys, "argv", ["flawsmith", "-v"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "-v goes with --version" in capsys.readouterr().err


def test_what_a_verb_ends_with_is_korean_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Closing(
        "generate", "96 samples and 48 negative controls", {}, (Path("r/samples"),), ["flawsmith", "measure", "r"]
    )
    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    made.say(as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "generate: 샘플 96개, 음성 대조군 48개",
        "열어 볼 것: r/samples",
        "다음 명령: flawsmith measure r",
    ]


@pytest.fixture
def quick(small_config: dict[str, Any], tmp_path: Path) -> Path:
    """A configuration of a run of seconds, as a file."""
    settings = {**small_config, "data.products": ["screw"], "generator.name": "crop_paste", "generate.count": 2}
    path = tmp_path / "quick.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items()), "utf-8")
    return path


def test_exports_older_than_the_samples_are_named_with_the_command_that_writes_them(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "a run")
    run = ["run", str(quick), "--out", folder]
    assert "older than the samples" not in said(monkeypatch, capsys, *run)
    also = ["export", folder, "--set", 'export.formats=["coco"]']
    assert "older than the samples" not in said(monkeypatch, capsys, *also)
    assert "older than the samples" not in said(
        monkeypatch, capsys, *also, "--set", "export.real=shots"
    )  # other shots, equal samples
    again = said(monkeypatch, capsys, *run, "--set", "generate.count=3", "--set", 'export.formats=["yolo"]')
    (line,) = [line for line in again.splitlines() if line.startswith("older than")]
    assert line.startswith(f"older than the samples now are: {folder}/export/mvtec, {folder}/export/coco; ")
    assert "지금의 샘플보다 오래되었습니다" in in_korean(line)
    assert line in said(monkeypatch, capsys, "export", folder)
    command = shlex.split(line.split("`")[1])
    assert "older than the samples" not in said(monkeypatch, capsys, *command[1:])
    assert all((tmp_path / "a run/export" / name).is_dir() for name in ("mvtec", "coco", "yolo"))


def test_a_run_says_what_it_was_made_with_otherwise(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = ["flawsmith", "run", str(quick), "--out", str(folder), "--until", "train"]
    for more, told in (
        (["--set", "generate.count=3"], ""),
        (["--set", "generate.count=3"], ""),
        ([], "generate.count = 3 (now 2)"),
        ([], ""),
        (["--set", "generate.count=4", "--set", "prove.seeds=1"], ""),
        (["--set", "generate.count=4"], "prove.seeds = 1 (now 3)"),
    ):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit):
            cli.main()
        error = capsys.readouterr().err
        sentence = f"run: {folder} was made with {told}; what these settings change is made anew"
        assert (sentence in error) == bool(told) and ("was made with" in error) == bool(told)


@pytest.mark.parametrize(
    "wrong", ["data.root=nowhere", "data.layout=visa", "generator.settings={x=1}", "data.defects=['none']"]
)
@pytest.mark.parametrize("verb", ["run", "train"])
def test_what_is_refused_before_any_stage_leaves_no_folder(
    verb: str,
    wrong: str,
    quick: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(tmp_path.rglob("*"))
    said(monkeypatch, capsys, verb, str(quick), "--out", str(tmp_path / "runs/new"), "--set", wrong, code=2)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_refused_leaves_a_run_and_the_files_of_others_alone(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    refused = ["run", str(quick), "--out", str(folder), "--set", "data.root=nowhere"]
    said(monkeypatch, capsys, *refused, code=2)
    assert folder.is_dir() and not [*folder.iterdir()]
    said(monkeypatch, capsys, "train", str(quick), "--out", str(folder))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    said(monkeypatch, capsys, *refused, code=2)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_without_shots_says_how_to_get_a_proof(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run = fs.Run.create(folder, fs.load_config(quick, {"data.shots": 0, "export.real": "shots"}))
    write_json(run.path("data.json"), {"shots": []})
    sentence = closing_of_run("run", run.path("report.html")).sentence
    root = run.config.data.root
    assert sentence.splitlines()[0].endswith(
        f"in {root}, then: flawsmith new --from {root} > my.toml && flawsmith run my.toml --out {folder}-proof "
        f"--set generator.name={run.config.generator.name}"
    )
    assert sentence.splitlines()[1] == 'export.real = "shots" adds nothing, for this run learns from no shots'
    assert "adds nothing" in closing_of("export", run).sentence
    assert not re.search("proof|beside|nothing", in_korean(sentence).replace(f"{folder}-proof", ""))
    write_json(run.path("data.json"), {"shots": [], "test_defects": [{"id": "a.png"}, {"id": "b.png"}]})
    closing = closing_of_run("run", run.path("report.html"))
    assert "2 defect photographs are there, and data.shots = 0 learns from none" in closing.sentence
    assert closing.following == ["flawsmith", "run", str(folder), "--set", "data.shots=10"]


@pytest.mark.parametrize(
    "words", [[], ["--generator", "dual_branch"], ["--generator", "dual_branch", "--paper"], ["--from", "ROOT"]]
)
def test_settings_that_go_to_the_terminal_come_with_the_command_that_saves_them(
    words: list[str], factory_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(factory_root) if word == "ROOT" else word for word in words]
    for terminal in (False, True):
        monkeypatch.setattr(sys, "argv", ["flawsmith", "new", *words])
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        with pytest.raises(SystemExit):
            cli.main()
        printed = capsys.readouterr()
        saved = f"to write this into a file: {shlex.join(['flawsmith', 'new', *words])} > my.toml\n"
        assert printed.err == (saved if terminal else "") and "[data]" in printed.out
