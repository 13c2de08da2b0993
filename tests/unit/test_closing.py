"""What the verbs end with: sentences for people, one JSON object for scripts; and what a bug report needs."""

from __future__ import annotations

import json
import re
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
        f"report: the samples in {folder / 'samples'} are not proven, for prove.enabled = false keeps the proof out; "
        "run again with --set prove.enabled=true",
        f"open: {folder / 'report.html'}",
        f"open: {folder / 'export/mvtec'}",
    ]
    assert all(Path(line.removeprefix("open: ")).exists() for line in report[1:])


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
