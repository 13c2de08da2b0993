"""From a drawn mask to an accepted pair, over HTTP and with a real worker process."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

import flawsmith
from flawsmith.data import factory, images
from flawsmith.data.masks.parts import part_mask
from flawsmith.errors import DataError
from flawsmith.run.painted import painted_pairs
from flawsmith.studio.masks import mask_of, runs_of
from flawsmith.studio.session import Studio
from flawsmith.studio.tasks import Bench, Errand
from flawsmith.studio.workspace import Workspace

from .conftest import SIZE, Client, serving

GOOD = "magnet/train/good/000.png"
DEEP = "deep/train/good/001.png"


def drawn(seed: int = 0) -> np.ndarray:
    """Return a mask that no brush would draw: a frayed blob, with pixels that touch no other."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    near = np.hypot(rows - 45, (columns - 50) / 2)
    mask = near + rng.normal(0, 3, near.shape) < 11
    mask[0, 0] = mask[SIZE - 1, SIZE - 1] = True
    return np.asarray(mask)


def asked(name: str, mask: np.ndarray, **more: object) -> dict[str, object]:
    request = {"photograph": name, "mask": runs_of(mask), "defect": "crack", "generator": "patch_synthesis"}
    return {**request, "seed": 5} | more


def test_runs_are_the_mask() -> None:
    rng = np.random.default_rng(1)
    for shape in ((1, 1), (3, 7), (16, 9)):
        for share in (0.0, 0.3, 0.9, 1.0):
            mask = rng.random(shape) < share
            runs = runs_of(mask)
            flat = [
                place
                for start, length in zip(runs[::2], runs[1::2], strict=True)
                for place in range(start, start + length)
            ]
            assert flat == np.flatnonzero(mask).tolist()
            assert (mask_of(runs, shape) == mask).all()


@pytest.mark.parametrize("runs", [[1], [0, 0], [-1, 2], [4, 6], [3, 2, 1, 1], [0, 3, 2, 1], [2**62, 2**62]])
def test_runs_that_are_no_mask_are_refused(runs: list[int]) -> None:
    with pytest.raises(DataError, match="mask"):
        mask_of(runs, (3, 3))


def test_runs_may_touch() -> None:
    assert mask_of([0, 3, 3, 3], (2, 3)).all()  # the page ends a run with its row


@pytest.mark.parametrize("name", [GOOD, DEEP])
def test_a_drawn_mask_arrives_and_what_is_outside_stays(client: Client, studio: Studio, name: str) -> None:
    mask = drawn()
    job = client.finished(client.post("api/paint", asked(name, mask)))
    assert job["state"] == "done", job
    made = [one for one in job["result"]["candidates"] if "name" in one]
    assert [one["seed"] for one in made] == [5, 6, 7, 8]
    for end in ("crop", "near"):
        assert client.get(f"api/candidate/{made[1]['name']}/{end}").content.startswith(b"\x89PNG")
    pair = client.post(f"api/candidate/{made[1]['name']}/accept").json()["name"]
    path = studio.workspace.painted / pair
    photograph = images.read(studio.workspace.example(name).image)
    picture = images.read(path.with_suffix(".png"))
    label = images.read_mask(path.with_suffix(".mask.png"), picture.shape)
    saved = images.read_mask(path.with_suffix(".drawn.mask.png"), picture.shape)
    assert (saved == mask).all()
    assert picture.dtype == photograph.dtype and picture.shape == photograph.shape
    assert label.any() and not (label & ~mask).any()
    assert not images.differs(picture, photograph)[~label].any()
    assert images.differs(picture, photograph)[label].any()
    record = json.loads(path.with_suffix(".json").read_text())
    assert (record["seed"], record["photograph"]) == (6, str(studio.workspace.example(name).image))
    # The command line paints the same from what was saved.
    again = flawsmith.paint(
        studio.workspace.source, record["photograph"], path.with_suffix(".drawn.mask.png"), "crack", seed=6
    )
    assert (again.picture == picture).all() and (again.mask == label).all()


def test_accepted_pairs_are_numbered_and_listed(client: Client, studio: Studio) -> None:
    before = len(client.get("api/painted").json())
    job = client.finished(client.post("api/paint", asked(GOOD, drawn(2), count=2)))
    names = [one["name"] for one in job["result"]["candidates"]]
    kept = [client.post(f"api/candidate/{name}/accept").json()["name"] for name in names]
    assert len(set(kept)) == 2 and len(client.get("api/painted").json()) == before + 2
    assert client.get("api/painted/thumb", name=kept[0]).content.startswith(b"\xff\xd8")
    pairs = {pair.name: pair for pair in painted_pairs(studio.workspace.painted)}
    assert pairs[kept[1]].defect == "crack" and pairs[kept[1]].product == "magnet"
    # Without its record, which is written last, a pair is none; its number is not given again.
    pairs[kept[1]].image.with_suffix(".json").unlink()
    assert kept[1] not in {pair.name for pair in painted_pairs(studio.workspace.painted)}
    job = client.finished(client.post("api/paint", asked(GOOD, drawn(2), count=1)))
    (again,) = job["result"]["candidates"]
    assert client.post(f"api/candidate/{again['name']}/accept").json()["name"] > kept[1]


def test_a_photograph_that_changed_is_not_accepted(client: Client, studio: Studio) -> None:
    job = client.finished(client.post("api/paint", asked("magnet/train/good/003.png", drawn(), count=1)))
    (made,) = job["result"]["candidates"]
    image = studio.workspace.example("magnet/train/good/003.png").image
    before = image.read_bytes()
    try:
        images.write(image, images.read(image)[::-1].copy())
        answer = client.post(f"api/candidate/{made['name']}/accept")
        assert answer.status_code == 404 and "has changed" in answer.json()["error"]
    finally:
        image.write_bytes(before)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"generator": "controlnet_inpaint"}, "cannot paint here"),
        ({"defect": "rust"}, "no shots of 'rust'"),
        ({"mask": [0, SIZE * SIZE + 1]}, "no places of 96 x 96"),
    ],
)
def test_what_cannot_be_painted_is_said(client: Client, more: dict[str, object], said: str) -> None:
    job = client.finished(client.post("api/paint", asked(GOOD, drawn()) | more))
    assert job["state"] == "failed" and said in job["problem"]


def test_test_pictures_are_not_painted_on(client: Client, studio: Studio) -> None:
    shown = next(one.id for one in studio.workspace.labelled)
    answer = client.post("api/paint", asked(shown, drawn()))
    assert answer.status_code == 404 and "not among the normal photographs" in answer.json()["error"]


@pytest.mark.parametrize(
    ("way", "sentence"),
    [("shots", ""), ("procedural", ""), ("sentence", "a crack on the left"), ("sentence", "왼쪽에 균열")],
)
def test_masks_are_proposed(client: Client, way: str, sentence: str) -> None:
    request = {"photograph": GOOD, "way": way, "defect": "chip", "seed": 3, "sentence": sentence}
    job = client.finished(client.post("api/propose", request))
    assert job["state"] == "done", job
    mask = mask_of(job["result"]["mask"], (SIZE, SIZE))
    assert mask.any() and not mask.all()
    assert job["result"]["defect"] == ("crack" if sentence else "chip")
    if sentence:
        assert np.argwhere(mask)[:, 1].mean() < SIZE / 2
    again = client.finished(client.post("api/propose", request))
    assert again["result"] == job["result"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"way": "sentence", "sentence": "a purple elephant"}, "purple"),
        ({"way": "sentence", "sentence": " "}, "say what"),
        ({"way": "magic"}, "unknown"),
        ({"way": "shots", "defect": "rust"}, "no shots"),
    ],
)
def test_a_proposal_that_is_not_understood_is_said(client: Client, more: dict[str, object], said: str) -> None:
    request = {"photograph": GOOD, "way": "shots", "defect": "chip", "seed": 0, "sentence": "", **more}
    job = client.finished(client.post("api/propose", request))
    assert job["state"] == "failed" and said in job["problem"]


def test_a_killed_worker_is_reported_and_another_one_works(client: Client, studio: Studio) -> None:
    started = client.post("api/paint", asked(GOOD, drawn(), count=8)).json()["job"]
    client.until(started, lambda job: job["result"].get("candidates"))
    worker = studio.painting.worker
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    job = client.until(started, lambda job: job["state"] not in ("waiting", "running"))
    if job["state"] == "lost":  # else the last candidate was quicker than the signal
        assert "SIGKILL" in job["problem"] and "start the job again" in job["problem"]
    again = client.finished(client.post("api/paint", asked(GOOD, drawn(), count=1)))
    assert again["state"] == "done" and studio.painting.worker not in (None, worker)


def test_a_job_is_cancelled(client: Client) -> None:
    first = client.post("api/paint", asked(GOOD, drawn(), count=8)).json()["job"]
    second = client.post("api/paint", asked(GOOD, drawn(), count=8)).json()["job"]
    for number in (second, first):
        assert client.post(f"api/job/{number}/cancel").json()["state"] == "cancelled"
    assert client.finished(client.post("api/paint", asked(GOOD, drawn(), count=1)))["state"] == "done"
    assert client.get("api/job/999999").status_code == 404


@pytest.mark.parametrize("way", ["shots", "procedural"])
def test_a_proposal_is_laid_on_the_part_of_this_very_photograph(tmp_path: Path, way: str) -> None:
    """The parts lie elsewhere in every photograph."""
    root = tmp_path / "screws"
    factory.write_dataset(root, "screw", ["rust"], normals=6, per_defect=6, seed=7, size=128)
    workspace = Workspace.open(root, tmp_path / "painted")
    bench, errand = Bench(workspace, tmp_path), Errand(1, lambda answer: None, lambda: False)
    for number, example in enumerate(workspace.normals):
        proposed = bench.propose(errand, photograph=example.id, way=way, defect="rust", seed=number, sentence="")
        mask = mask_of(proposed["mask"], (128, 128))
        part = part_mask(images.read(example.image), example.span)
        assert part.mean() < 0.2 and (mask & part).sum() > 0.5 * mask.sum(), example.id


def test_16_bits_are_shown_between_chosen_values(client: Client) -> None:
    facts = client.get("api/photograph", name=DEEP).json()
    assert facts["depth"] == 16 and facts["range"][1] == 4095
    native = images.read(Path(client.studio.workspace.example(DEEP).image))
    answer = client.get("api/photograph/tile", name=DEEP, level=0, column=0, row=0, low=1000, high=2000)
    shown = images.read_bytes(answer.content, "tile")
    assert (shown == np.rint(np.clip((native - 1000.0) / 1000, 0, 1) * 255)).all()
    coarse = client.get("api/photograph/tile", name=DEEP, level=1, column=0, row=0)
    assert images.read_bytes(coarse.content, "tile").shape == (SIZE // 2, SIZE // 2)
    assert client.get("api/photograph/tile", name=DEEP, level=0, column=1, row=0).status_code == 404
    answer = client.get("api/photograph/tile", name=DEEP, level=0, column=0, row=0, low=5, high=5)
    assert "below white" in answer.json()["error"]


def test_many_requests_leave_memory_and_no_process(photographs: Path) -> None:
    def memory() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    with Studio(Workspace.open(photographs)) as started:
        from .conftest import serving

        with serving(started):
            client = Client(started)
            assert client.finished(client.post("api/paint", asked(GOOD, drawn(), count=1)))["state"] == "done"
            names = [one["id"] for one in client.get("api/source").json()["photographs"]]

            def ask(number: int, asking: Client = client) -> int:
                name = names[number % len(names)]
                query = {"name": name, "level": 0, "column": 0, "row": 0}
                places = [("api/source", {}), ("api/photograph/tile", query), ("api/photograph/thumb", {"name": name})]
                place, values = places[number % 3]
                return int(asking.get(place, **values).status_code)

            threads, wrong = [], []

            def at_once(first: int) -> None:
                own = Client(started)  # connections that threads share are closed under each other's hands
                wrong.extend(code for number in range(4) if (code := ask(first + number, own)) != 200)
                own.http.close()

            for number in range(50):
                threads.append(threading.Thread(target=at_once, args=(number,)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            before = memory()
            wrong.extend(code for number in range(2000) if (code := ask(number)) != 200)
            assert not wrong and memory() - before < 50
            worker = started.painting.worker
            client.http.close()
    assert worker is not None
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()  # it was waited for, so not even its entry is left


def test_a_proposal_lies_on_a_ring_and_not_in_its_hole(tmp_path: Path) -> None:
    factory.write_dataset(tmp_path / "set", "washer", ["chip", "stain"], normals=3, per_defect=4, seed=3, size=128)
    with serving(Studio(Workspace.open(tmp_path / "set", tmp_path / "painted"))) as studio:
        asking = Client(studio)
        example = next(one for one in studio.workspace.normals)
        native = images.read(example.image)
        part = part_mask(native)
        rows, columns = np.argwhere(part).mean(axis=0).astype(int)
        assert not part[rows, columns]  # the hole
        asked = {"photograph": example.id, "sentence": ""}
        for defect in ("chip", "stain"):
            for way in ("shots", "procedural"):
                for seed in range(3):
                    job = asking.finished(
                        asking.post("api/propose", {**asked, "way": way, "defect": defect, "seed": seed})
                    )
                    assert job["state"] == "done", job
                    proposed = mask_of(job["result"]["mask"], native.shape[:2])
                    assert proposed.any() and not (proposed & ~part).any()
        asking.close()
