"""Pictures and words are those of what is open now: another run, samples made anew, and what came to nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from fastapi.testclient import TestClient

from flawsmith.data import images
from flawsmith.errors import FlawsmithError
from flawsmith.exports import export as exports
from flawsmith.files import file_digest
from flawsmith.run.folder import Run
from flawsmith.run.records import write_records
from flawsmith.run.review import FILE
from flawsmith.studio import folder_routes
from flawsmith.studio.candidates import Candidate
from flawsmith.studio.commands.export_routes import state_of
from flawsmith.studio.pictures import PictureStore
from flawsmith.studio.server import OPENED, guarded
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace
from flawsmith.synthesis.by_hand.painted import Painted, Provenance
from flawsmith.types import MaskRule

from .conftest import SIZE, Client, serving
from .test_review_page import expect, lines, write_run

COUNT = 3
GOOD = "magnet/train/good/000.png"


@pytest.fixture
def plant(photographs: Path, tmp_path: Path) -> Path:
    """Return a folder with photographs and two runs of them, whose samples differ."""
    root = tmp_path / "plant"
    shutil.copytree(photographs, root / "set")
    for name in ("one", "other"):
        write_run(root / name, root / "set", COUNT, screen_enabled=False)
    make_anew(Run.open(root / "other"), 1)
    return root


@pytest.fixture
def studio(plant: Path) -> Iterator[Studio]:
    with serving(Studio(Workspace.open(plant / "one"), root=plant)) as started:
        yield started


@pytest.fixture
def client(studio: Studio) -> Iterator[Client]:
    with closing(Client(studio)) as asking:
        yield asking


def make_anew(run: Run, index: int) -> None:
    """Put another picture in place of a sample's."""
    path = run.path(run.samples()[index].image)
    picture = 255 - images.read(path)
    path.unlink()  # others are linked to it
    images.write(path, picture)


def hashed(run: Run) -> None:
    """Let the lines of a run say what is in its files, as today's do and those of earlier releases did not."""
    rows = [
        replace(one, image_hash=file_digest(run.path(one.image)), mask_hash=file_digest(run.path(one.mask)))
        for one in run.samples()
    ]
    write_records(run.path("samples.jsonl"), rows)


def provenance(photograph: Path) -> Provenance:
    return Provenance("0", "s", "i", "nsa", "magnet", "crack", 1, 0, str(photograph), "", None, None, "replace", 9, 9)


def pair_at(folder: Path, photograph: Path, left: int) -> Path:
    """Write a pair as if it was painted and accepted; return its picture."""
    native = images.read(photograph)
    mask = np.zeros(native.shape[:2], bool)
    mask[5:9, left : left + 4] = True
    picture = native.copy()
    picture[mask] = 255 - picture[mask]
    path = folder / "magnet" / "crack" / "000001.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Painted(picture, mask, provenance(photograph)).write(path)
    return path


def test_a_picture_is_shown_again_only_while_it_is_the_same(client: Client, studio: Studio) -> None:
    client.post("api/open", {"folder": "one"})
    places = [("api/sample/1", {"side": 96}), ("api/sample/1/tile", {"level": 0, "column": 0, "row": 0})]
    places += [("api/photograph/thumb", {"name": GOOD})]
    places += [("api/photograph/tile", {"name": GOOD, "level": 0, "column": 0, "row": 0})]
    before = [client.get(place, **query) for place, query in places]
    for (place, query), first in zip(places, before, strict=True):
        assert first.headers["cache-control"] == "private, no-cache", place
        known = {"if-none-match": first.headers["etag"]}
        again = client.http.get(place, params=query, headers=known)
        assert again.status_code == 304 and not again.content and again.headers["etag"] == first.headers["etag"]
        assert client.http.get(place, params={**query, "low": 1, "high": 9}, headers=known).status_code == 200
    client.post("api/open", {"folder": "other"})
    for (place, query), first in zip(places, before, strict=True):
        known = {"if-none-match": first.headers["etag"]}
        now = client.http.get(place, params=query, headers=known)
        if "sample" in place:
            assert now.status_code == 200 and now.content != first.content, place
        else:
            assert now.status_code == 304  # the photographs are the same


def test_an_outline_is_that_of_todays_mask(studio: Studio) -> None:
    store, (example, *_) = PictureStore(), studio.workspace.labelled
    first = store.thumb(example, 96, outline=True)
    assert store.thumb(replace(example, mask_rule=MaskRule(background=(255,))), 96, outline=True) != first
    mask = np.zeros((SIZE, SIZE), bool)
    mask[2:8, 2:60] = True
    images.write_mask(example.masks[0], mask)
    assert store.thumb(example, 96, outline=True) != first


@pytest.mark.parametrize("says", [True, False])
def test_nobody_decides_on_a_sample_that_was_made_anew_since(client: Client, studio: Studio, says: bool) -> None:
    run = studio.run
    if says:
        hashed(run)
    row = client.get("api/samples").json()["samples"][1]
    looked = {"sample": 1, "mark": row["mark"], "word": "reject"}
    run.path("linked.png").hardlink_to(run.path("samples/000001.png"))  # as an export may
    assert client.post("api/review", {**looked, "word": "keep"}).status_code == 200
    make_anew(run, 1)
    if says:
        hashed(run)
    drawn = {"mark": row["mark"], "mask": [SIZE * 30 + 35, 20]}
    for answer in (client.post("api/review", looked), client.post("api/sample/1/mask", drawn)):
        assert answer.status_code == 409 and "sample 1 was made anew" in answer.json()["error"], answer.text
    assert [line["word"] for line in lines(studio)] == ["keep"]
    again = client.get("api/samples").json()["samples"][1]["mark"]
    assert again != row["mark"] and client.post("api/review", {**looked, "mark": again}).status_code == 200
    assert client.post("api/sample/1/mask", {**drawn, "mark": again}).status_code == 200
    assert lines(studio)[-1]["word"] == "reject"


def test_an_old_page_changes_nothing_of_what_is_open_now(client: Client, studio: Studio, plant: Path) -> None:
    opened = client.get("api/samples").json()["opened"]
    assert opened == client.get("api/source").json()["number"] == 0
    client.http.headers[OPENED] = str(opened)
    assert client.post("api/review", {"sample": 0, "word": "keep"}).status_code == 200
    assert client.post("api/open", {"folder": "other"}).json() == {"number": 1}
    for path, body in (
        ("api/review", {"sample": 1, "word": "reject"}),
        ("api/sample/1/mask", {"mask": [0, 9]}),
        ("api/generate", {"count": 1}),
        ("api/export", {"formats": ["coco"]}),
        ("api/check", {}),
    ):
        answer = client.post(path, body)
        assert answer.status_code == 409 and "load the page anew" in answer.json()["error"], path
    assert studio.commands.last is None and not (plant / "other" / FILE).exists()
    assert client.get("api/samples").json()["opened"] == 1 and client.post("api/command/cancel").status_code == 200
    client.http.headers[OPENED] = "1"
    assert client.post("api/review", {"sample": 1, "word": "reject"}).status_code == 200


def test_what_is_accepted_twice_is_one_pair(client: Client, studio: Studio) -> None:
    example = studio.workspace.normal(GOOD)
    native = images.read(example.image)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[5:9, 5:9] = True
    picture = native.copy()
    picture[mask] = 255 - picture[mask]
    painted = Painted(picture, mask, provenance(example.image))
    Candidate.of("1-0", example, native, painted, (SIZE * 5 + 5, 4)).save(studio.candidates)
    answers = [client.post("api/candidate/1-0/accept").json() for _ in range(2)]
    assert answers[0] == answers[1] and len(client.get("api/painted").json()) == 1


def test_an_export_lacks_what_was_painted_since(studio: Studio, plant: Path) -> None:
    run, photograph = studio.run, plant / "set" / GOOD
    assert state_of(run) == "never"
    exports.export(run)
    assert state_of(run) == "written"
    path = pair_at(run.path("painted"), photograph, 5)
    assert state_of(run) == "changed"
    exports.export(run)
    assert state_of(run) == "written"
    path.with_suffix(".json").unlink()
    assert state_of(run) == "changed"
    for part in path.parent.iterdir():
        part.unlink()
    pair_at(run.path("painted"), photograph, 5)
    assert state_of(run) == "written"
    path.with_suffix(".mask.png").unlink()
    assert state_of(run) == "changed"  # an export would be refused


def test_a_run_that_could_not_begin_is_not_in_the_way(
    plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted = tmp_path / "work" / "painted"
    path = pair_at(painted, plant / "set" / GOOD, 5)
    mask = path.with_suffix(".mask.png")
    mask.rename(tmp_path / "mask.png")
    asked = {"count": 1, "generator": "cutpaste", "name": "mine"}
    run = tmp_path / "work" / "mine"
    with (
        serving(Studio(Workspace.open(plant / "set", painted, {"data.shots": 2}))) as started,
        closing(Client(started)) as asking,
    ):
        refused = asking.post("api/generate", asked)
        assert "its mask is missing" in refused.json()["error"] and not run.exists()
        shutil.move(tmp_path / "mask.png", mask)

        def full(*arguments: Any) -> None:
            Path(arguments[1]).touch()
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(shutil, "copy2", full)
            refused = asking.post("api/generate", asked)
        assert "No space left" in refused.json()["error"] and not run.exists()
        assert asking.post("api/generate", asked).status_code == 200
        assert [path.name for path in (run / "painted" / "magnet" / "crack").glob("*.json")] == ["000001.json"]


def test_no_command_starts_while_another_folder_is_opened(
    client: Client, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, run = Workspace.open, studio.run.folder

    def slowly(*arguments: Any, **settings: Any) -> Workspace:
        with pytest.raises(FlawsmithError, match="just being opened"):
            studio.commands.start("export", ["list"], run)
        assert client.post("api/open", {"folder": "one"}).status_code == 400
        return opens(*arguments, **settings)

    monkeypatch.setattr(folder_routes.Workspace, "open", slowly)
    assert client.post("api/open", {"folder": "other"}).status_code == 200 and studio.commands.last is None
    assert client.post("api/open", {"folder": "absent"}).status_code == 404
    with studio.commands.held():  # nothing holds it any more
        pass


def test_the_usual_port_is_left_out_of_names(plant: Path) -> None:
    with Studio(Workspace.open(plant / "one")) as other:
        other.port = 80
        address = f"/{other.token}/api/source"
        for host, status in (("127.0.0.1", 200), ("localhost", 200), ("localhost:80", 200), ("evil.example", 421)):
            assert TestClient(guarded(other), base_url=f"http://{host}").get(address).status_code == status, host


@pytest.mark.browser
def test_the_page_reads_its_samples_again_where_one_was_made_anew(opened: Any, studio: Studio) -> None:
    page = opened(studio, part="review")
    page.locator(".sample").nth(1).click()
    dialog = page.locator("dialog.sheet-of")
    before = dialog.locator("img").get_attribute("src")
    make_anew(studio.run, 1)
    page.keyboard.press("x")
    expect(page.locator(".note.error")).to_contain_text("sample 1 was made anew since it was shown")
    page.keyboard.press("ArrowLeft")  # the key had gone on to the next one
    expect(dialog).to_contain_text("1 · crack · kept by the screen")
    expect(dialog.locator("img")).not_to_have_attribute("src", before)  # the samples are read after the note is shown
    assert not lines(studio)
    page.keyboard.press("x")
    expect(dialog).to_contain_text("2 · chip")
    page.keyboard.press("Escape")
    expect(page.locator(".bar output")).to_contain_text("1 of 3 kept · 1 decided")
    assert [line["sample"] for line in lines(studio)] == [1]


@pytest.mark.browser
def test_an_old_tab_shows_nothing_of_another_run(opened: Any, studio: Studio) -> None:
    page = opened(studio, part="review")
    fetched = "async () => [...new Uint8Array(await (await fetch('api/sample/1?side=96')).arrayBuffer())].join()"
    first = page.evaluate(fetched)
    assert page.evaluate(fetched) == first
    with closing(Client(studio)) as client:
        client.post("api/open", {"folder": "other"})
    assert page.evaluate(fetched) != first
    page.locator(".sample").nth(1).focus()
    page.keyboard.press("x")
    page.wait_for_load_state()
    expect(page.locator("#source")).to_contain_text("other")
    assert not lines(studio)
