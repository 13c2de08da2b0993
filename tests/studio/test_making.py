"""Plan, make, prove and export over HTTP, with real processes: what is killed goes on, here or on the command line."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith.config import load_config, overridden, parse_overrides
from flawsmith.data import factory
from flawsmith.files import read_json
from flawsmith.run.folder import Run
from flawsmith.studio.commands import process
from flawsmith.studio.session import Studio
from flawsmith.studio.tasks import Bench
from flawsmith.studio.workspace import Workspace

from .conftest import Client, serving

PATIENCE = 240
COUNT = 12


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of photographs of one product, with enough of them to prove something."""
    root = tmp_path_factory.mktemp("parts") / "photographs"
    factory.write_dataset(root, "magnet", ["crack", "chip"], normals=6, per_defect=6, seed=3, size=64)
    return root


@pytest.fixture
def folder(parts: Path, tmp_path: Path) -> Iterator[Studio]:
    """A studio in which the photographs are open, and no run."""
    settings = {"data.shots": 3, "generate.batch": 4, "seed": 5}
    with serving(Studio(Workspace.open(parts, tmp_path / "work" / "painted", settings))) as studio:
        yield studio


@pytest.fixture
def asking(folder: Studio) -> Iterator[Client]:
    with closing(Client(folder)) as client:
        yield client


def over(client: Client, wanted: Any = lambda state: state["state"] != "running") -> dict[str, Any]:
    """Wait for a state of the command."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        state = client.get("api/command").json()
        if state and wanted(state):
            return dict(state)
        time.sleep(0.05)
    raise AssertionError(f"the command came to no end: {state}")


def command_line(words: list[str]) -> str:
    done = subprocess.run([sys.executable, "-m", "flawsmith", *words], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pictures(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "samples").iterdir()}


def generated(state: dict[str, Any]) -> float:
    return next((step["done"] for step in state["steps"] if step["what"] == "generate"), 0)


def asked(count: Any = COUNT, **values: Any) -> dict[str, Any]:
    return {"count": count, "values": values}


def test_a_killed_process_is_said_and_the_command_line_goes_on_and_makes_the_same(
    folder: Studio, asking: Client, parts: Path, tmp_path: Path
) -> None:
    client = asking
    started = client.post("api/generate", {**asked(), "name": "mine"})
    assert started.status_code == 200, started.text
    run = tmp_path / "work" / "mine"
    assert started.json()["command"] == shlex.join(["flawsmith", "run", str(run), "--until", "screen"])
    assert client.get("api/source").json()["run"] and folder.workspace.run is not None
    busy = client.post("api/generate", asked())
    assert busy.status_code == 400 and "still running" in busy.json()["error"]
    over(client, lambda state: generated(state) >= 4)
    assert folder.commands.last is not None
    os.kill(folder.commands.last.process, signal.SIGKILL)
    state = over(client)
    assert state["state"] == "lost" and "SIGKILL" in state["problem"] and "go on" in state["problem"]
    made = len([sample for sample in Run.open(run).samples() if sample.made])
    assert 0 < made < 2 * COUNT
    command_line(shlex.split(state["command"])[1:])
    settings = ["data.shots=3", "generate.batch=4", "seed=5", f"generate.count={COUNT}"]
    (tmp_path / "plain.toml").write_text(f'[data]\nroot = "{parts}"\n', "utf-8")
    sets = [word for setting in settings for word in ("--set", setting)]
    command_line(["run", str(tmp_path / "plain.toml"), "--out", str(tmp_path / "plain"), "--until", "generate", *sets])
    assert pictures(run) == pictures(tmp_path / "plain") and len(pictures(run)) == 4 * COUNT


def test_the_studio_goes_on_with_what_the_command_line_began(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'[data]\nroot = "{parts}"\nshots = 3\n[generate]\ncount = 4\n', "utf-8")
    run = tmp_path / "mine"
    command_line(["run", str(tmp_path / "mine.toml"), "--out", str(run), "--until", "generate"])
    before = pictures(run)
    with serving(Studio(Workspace.open(run))) as studio, closing(Client(studio)) as client:
        plan = client.post("api/plan", asked(6)).json()
        assert [(row["defect"], row["planned"], row["made"]) for row in plan["rows"]] == [
            ("chip", 6, 4),
            ("crack", 6, 4),
        ]
        assert plan["begun"] and plan["anew"]  # another count is another plan
        same = client.post("api/plan", asked(4)).json()
        assert same["begun"] and not same["anew"] and same["command"] == f"flawsmith run {run} --until screen"
        client.post("api/generate", asked(6))
        state = over(client, lambda state: state["state"] != "running" or state["steps"])
        client.post("api/command/cancel")
        state = over(client)
        assert state["state"] in ("cancelled", "done"), state
        begun = client.post("api/generate", asked(6))
        assert begun.status_code == 200
        events = []
        with client.http.stream("GET", "api/command/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
        assert events[-1]["state"] == "done", events[-1]
        assert any(event["state"] == "running" for event in events)
        step = next(step for step in events[-1]["steps"] if step["what"] == "generate")
        assert step["done"] == step["total"] == 12 and step["unit"] == "samples" and step["rate"] >= 0
        assert len(pictures(run)) == 24 and not set(before) - set(pictures(run))
        export_and_look(client, run)
        prove_and_look(client, run)


def export_and_look(client: Client, run: Path) -> None:
    """The preview's folders are the export's; what was written is told by the files themselves."""
    before = client.get("api/export").json()
    assert before["state"] == "never" and all(one["written"] is None for one in before["formats"])
    chosen = {"formats": ["coco", "yolo"], "values": {"export.settings.coco.masks": "polygons"}}
    looked = client.finished(client.post("api/export/tree", chosen))
    assert looked["state"] == "done", looked
    assert looked["result"]["pictures"] == 18 and looked["result"]["defects"] == 12
    counts = looked["result"]["counts"]
    assert sum(row["pictures"] for row in counts) == 18 and looked["result"]["rejected"] == 0
    assert sum(row["pictures"] for row in counts if row["defect"]) == 12 and counts[0]["defect"] is None
    command = client.post("api/export/plan", chosen).json()["command"]
    assert client.post("api/export", chosen).json()["command"] == command
    assert over(client)["state"] == "done"
    assert parse_overrides(shlex.split(command)[4::2]) == {
        "export.formats": ["coco", "yolo"],
        "export.settings.coco.masks": "polygons",
    }
    told = client.get("api/export").json()
    assert told["state"] == "written" and told["folder"] == str(run / "export")
    written = {one["name"]: one["written"] for one in told["formats"] if one["written"]}
    assert set(written) == {"coco", "yolo"}
    for name, tree in written.items():
        files = [path for path in (run / "export" / name).rglob("*") if path.is_file()]
        assert (tree["files"], tree["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
        preview = looked["result"]["trees"][name]
        assert set(tree["folders"]) == set(preview["folders"]) and set(tree["first"]) == set(preview["first"])
        assert 0 < preview["files"] < tree["files"]
    again = client.post("api/export/plan", {**chosen, "values": {}}).json()["command"]  # what config.json says by now
    assert parse_overrides(shlex.split(again)[4::2]) == {"export.formats": ["coco", "yolo"]}
    client.post("api/review", {"sample": 0, "word": "reject"})
    assert client.finished(client.post("api/export/tree", chosen))["result"]["rejected"] == 1
    changed = client.get("api/export").json()
    assert changed["state"] == "changed" and not any(one["written"] for one in changed["formats"])
    client.post("api/review", {"sample": 0, "word": ""})
    assert client.get("api/export").json()["state"] == "written"
    annotations = read_json(run / "export" / "coco" / "annotations" / "instances_train.json")["annotations"]
    assert annotations and all(isinstance(one["segmentation"], list) for one in annotations)


def prove_and_look(client: Client, run: Path) -> None:
    small = {"prove.seeds": 1, "prove.size": 64, "prove.resamples": 100, "prove.mix": False, "prove.budget": 0.02}
    small |= {"prove.detectors": '["probe"]', "prove.against": "[]", "prove.curve": "[]", "measure.enabled": False}
    assert client.get("api/proof").json()["proven"] is False
    begun = client.post("api/prove", {"values": small})
    assert begun.status_code == 200, begun.text
    state = over(client)
    assert state["state"] == "done", state
    assert any(step["unit"] == "trainings" and step["done"] == step["total"] for step in state["steps"])
    shown, proof = client.get("api/proof").json(), read_json(run / "proof.json")
    assert shown["proven"] and shown["detectors"] == ["probe"] and shown["seeds"] == 1
    (product,) = shown["products"]
    comparisons = proof["products"]["magnet"]["comparisons"]
    mine = [row for row in comparisons if (row["arm"], row["against"]) == ("ours", "real-only")]
    assert [row["difference"] for row in product["rows"]] == [row["difference"] for row in mine]
    assert sum(row["mean"] for row in product["rows"]) == len({row["task"] for row in mine})
    for row in product["telling"]:
        assert client.get("api/photograph/thumb", name=row["id"]).status_code == 200
    report = client.get("api/report")
    assert report.status_code == 200 and "sandbox" in report.headers["content-security-policy"]
    assert "script-src" not in report.headers["content-security-policy"]
    assert client.post("api/proof/plan", {"values": {}}).json()["command"] == f"flawsmith run {run} --until prove"


def test_a_plan_is_what_counts_says(folder: Studio, asking: Client) -> None:
    client = asking
    plan = client.post("api/plan", {**asked({"crack": 3, "chip": 0}), "name": "x"}).json()
    assert [(row["product"], row["defect"], row["shots"], row["planned"]) for row in plan["rows"]] == [
        ("magnet", "chip", 3, 0),
        ("magnet", "crack", 3, 3),
    ]
    assert not plan["begun"] and plan["command"].startswith("flawsmith run ")
    none = client.post("api/plan", asked({"crack": 0})).json()
    assert "asks for no sample" in none["problem"]
    balanced = client.post("api/plan", asked("balance")).json()
    assert "as many pictures as the largest" in balanced["problem"]
    assert not (folder.workspace.runs / "x").exists()


@pytest.mark.parametrize(
    "name", ["data.root", "backbone.source", "features.source", "generator.settings.textures", "prove.settings", "x"]
)
def test_what_was_not_offered_is_not_set(folder: Studio, asking: Client, name: str) -> None:
    for place in ("api/plan", "api/generate"):
        answer = asking.post(place, {"generator": "perlin", "values": {name: "/etc"}})
        assert answer.status_code == 400 and name in answer.json()["error"], answer.text
    assert folder.workspace.run is None and folder.commands.last is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"values": {"generate.bend": 9}}, "generate.bend"),
        ({"values": {"generate.transfer": "[{"}}, "generate.transfer"),
        ({"values": {"generate.masks": "shot"}}, "generate.masks"),
        ({"generator": "perlins"}, "perlins"),
        ({"count": 0}, "generate.count"),
        ({"count": {"cracks": -1}}, "generate.count"),
        ({"name": "../up"}, "no name for a folder"),
        ({"name": "a/b"}, "no name for a folder"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_wrong_plan_is_one_sentence(folder: Studio, asking: Client, body: dict[str, Any], said: str) -> None:
    for place in ("api/plan", "api/generate"):
        answer = asking.post(place, body)
        assert answer.status_code == 400 and said in answer.json()["error"], answer.text
    assert folder.workspace.run is None and folder.commands.last is None


def test_a_run_is_made_where_nothing_stands(folder: Studio, asking: Client) -> None:
    taken = folder.workspace.runs / "taken"
    taken.mkdir(parents=True)
    (taken / "mine.txt").write_text("mine")
    answer = asking.post("api/generate", {**asked(1), "name": "taken"})
    assert answer.status_code == 400 and "is there already" in answer.json()["error"]
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]


def test_every_field_of_a_form_is_a_setting_with_its_value(asking: Client) -> None:
    plan = asking.get("api/plan").json()
    config = load_config(None).model_dump(mode="json")
    for field in plan["fields"]:
        value: Any = config
        for step in field["name"].split("."):
            value = value[step]
        assert field["help"] and (
            field["kind"] == "toml"
            or field["name"] == "seed"
            or field["name"].endswith("batch")
            or field["value"] == value
        )
        assert field["kind"] != "choice" or field["value"] in field["choices"]
    kinds = {field["name"]: field["kind"] for field in plan["fields"]}
    assert kinds["generate.bend"] == "number" and kinds["generate.turn"] == "choice"
    assert kinds["generate.outline"] == "switch" and kinds["seed"] == "whole" and kinds["generate.transfer"] == "toml"
    own = asking.get("api/plan/generator", name="perlin").json()
    assert "textures" not in {field["name"].rpartition(".")[2] for field in own} and own
    assert asking.get("api/plan/generator", name="no").json() == []


def test_a_command_speaks_as_the_page_does(tmp_path: Path) -> None:
    assert [process.language_of(named) for named in ("ko-KR,ko;q=0.9,en;q=0.8", "en-GB", "de", "")] == [
        "ko",
        "en",
        "",
        "",
    ]
    words = ["run", str(tmp_path / "my.toml"), "--out", str(tmp_path / "run")]
    for language, said in (("ko", "그런 설정 파일이 없습니다"), ("en", "no such configuration file")):
        commands = process.Commands()
        asked = commands.start("export", words, tmp_path, language)
        ends = time.monotonic() + 60
        while asked.state == "running" and time.monotonic() < ends:
            time.sleep(0.02)
        assert asked.state == "failed" and said in asked.problem, asked.problem
        commands.close()


def test_a_command_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    commands = process.Commands()
    stuck = commands.start("generate", ["list"], tmp_path)
    os.kill(stuck.process, signal.SIGSTOP)
    stuck.cancel()
    assert stuck.to_json()["stopping"]
    ends = time.monotonic() + 60
    while stuck.state == "running" and time.monotonic() < ends:
        time.sleep(0.02)
    assert stuck.state == "cancelled" and commands.running is None
    commands.close()


def test_what_paints_is_opened_anew_when_the_run_has_changed(parts: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", load_config(None, {"data.root": str(parts), "data.shots": 3}))
    bench = Bench(Workspace.open(run.folder), tmp_path)
    first = bench.brush("patch_synthesis")
    assert bench.brush("patch_synthesis") is first
    Run.create(run.folder, overridden(run.config, {"generate.visible": 0.05}))
    again = bench.brush("patch_synthesis")
    assert again is not first and again.config.generate.visible == 0.05


def test_the_command_chooses_the_generator_where_that_is_asked_for(folder: Studio, asking: Client) -> None:
    wanted = {**asked(2), "generator": "auto", "name": "chosen"}
    planned = asking.post("api/plan", wanted).json()
    assert planned["command"].endswith("--until screen --set 'generator.name=\"auto\"'")
    begun = asking.post("api/generate", wanted)
    assert begun.status_code == 200 and begun.json()["command"] == planned["command"], begun.text
    over(asking, lambda state: state["state"] != "running" or any(one["what"] == "choose" for one in state["steps"]))
    asking.post("api/command/cancel")
    assert over(asking)["state"] == "cancelled"
    assert folder.run.config.generate.count == 2 and folder.run.path("choice").is_dir()


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def rooted(parts: Path, tmp_path: Path) -> Iterator[Studio]:
    """A studio with nothing open, and a root: photographs, a run of them, one of others, a link that leads out."""
    root = tmp_path / "root"
    factory.write_dataset(root / "plant 1" / "사진", "magnet", ["crack"], normals=3, per_defect=3, seed=1, size=64)
    Run.create(root / "run", load_config(None, {"data.root": str(root / "plant 1" / "사진"), "data.shots": 2}))
    Run.create(root / "foreign", load_config(None, {"data.root": str(parts)}))
    (root / "link").symlink_to(parts)
    (root / ".hidden").mkdir()
    with serving(Studio(Workspace.nothing(root), root=root)) as studio:
        yield studio


def test_folders_are_opened_inside_the_root(rooted: Studio) -> None:
    with closing(Client(rooted)) as client:
        opens(client)


def opens(client: Client) -> None:
    assert client.get("api/source").json()["opened"] is False
    listed = client.get("api/folders").json()
    assert [(one["name"], one["run"]) for one in listed["folders"]] == [
        ("foreign", True),
        ("plant 1", False),
        ("run", True),
    ]
    inside = client.get("api/folders", below="plant 1").json()
    assert inside["folder"] == "plant 1" and [one["name"] for one in inside["folders"]] == ["사진"]
    assert client.post("api/open", {"folder": "plant 1/사진"}).json() == {"number": 1}
    source = client.get("api/source").json()
    assert source["opened"] and not source["run"] and source["defects"] == {"magnet": ["crack"]}
    name = source["photographs"][0]["id"]
    assert client.get("api/photograph/thumb", name=name).status_code == 200
    assert client.post("api/open", {"folder": "run"}).json() == {"number": 2}
    assert client.get("api/source").json()["run"] and client.get("api/samples").json()["samples"] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("..", "leads upwards"),
        ("plant 1/../..", "leads upwards"),
        ("/etc", "no relative path"),
        ("link", "through a link"),
        ("absent", "no such folder"),
        ("foreign", "outside"),
        ("plant 1", ""),
        ("\0", "NUL"),
    ],
)
def test_nothing_outside_the_root_is_opened(rooted: Studio, name: str, said: str) -> None:
    with closing(Client(rooted)) as client:
        answer = client.post("api/open", {"folder": name})
        assert answer.status_code in (400, 404) and said in answer.json()["error"], answer.text
        if name not in ("foreign", "plant 1"):
            assert client.get("api/folders", below=name).status_code == 404
    assert rooted.opened == 0 and not rooted.workspace.opened


def test_without_a_root_nothing_else_is_opened(asking: Client) -> None:
    client = asking
    assert client.get("api/source").json()["folders"] is False
    for answer in (client.get("api/folders"), client.post("api/open", {"folder": ""})):
        assert answer.status_code == 404 and "--root" in answer.json()["error"]


def test_a_folder_in_another_layout_is_recognised(tmp_path: Path) -> None:
    root = tmp_path / "set"
    factory.write_dataset(tmp_path / "mvtec", "magnet", ["crack"], normals=3, per_defect=3, seed=1, size=64)
    product = tmp_path / "mvtec" / "magnet"
    for path in sorted((product / "train" / "good").iterdir()):
        path.rename(_made(root / "good") / path.name)
    for path in sorted((product / "test" / "crack").iterdir()):
        mask = product / "ground_truth" / "crack" / f"{path.stem}_mask.png"
        mask.rename(_made(root / "crack") / f"{path.stem}_mask.png")
        path.rename(root / "crack" / path.name)
    opened = Workspace.open(root)
    assert opened.config.data.layout == "pairs" and opened.defects == {"set": ("crack",)} and opened.normals


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
