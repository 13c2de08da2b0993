"""The page Data: a setting that answers a finding is written by its button, and taken back at the same place."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.korean import CATALOGUE, in_korean
from flawsmith.run.folder import Run
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace

from .conftest import Client, serving
from .test_review_page import expect

TIMEOUT = 90_000
HOLE = re.compile(r"\{[a-z_0-9]+\}")
LINE = 'generate.count = "balance"'


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A surface with two cracks and eight chips."""
    root = tmp_path_factory.mktemp("unlike") / "photographs"
    factory.write_dataset(root, "magnet", ["crack", "chip"], normals=5, per_defect=8, seed=3, size=64)
    for path in sorted((root / "magnet/test/crack").iterdir())[2:]:
        path.unlink()
    for path in sorted((root / "magnet/ground_truth/crack").iterdir())[2:]:
        path.unlink()
    return root


@pytest.fixture
def draft(unlike: Path) -> Iterator[Studio]:
    with serving(Studio(Workspace.open(unlike))) as started:
        yield started


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Studio]:
    """Five screws, four of them to learn from."""
    factory.write_dataset(tmp_path / "screws", "screw", ["rust"], normals=5, per_defect=4, seed=3, size=160)
    with serving(Studio(Workspace.open(tmp_path / "screws"))) as started:
        yield started


@pytest.fixture
def of_run(unlike: Path, tmp_path: Path) -> Iterator[Studio]:
    run = Run.create(tmp_path / "run", load_config(None, {"data.root": str(unlike), "generate.count": 7}))
    with serving(Studio(Workspace.open(run.folder))) as started:
        yield started


def checked(client: Client) -> dict[str, Any]:
    job = client.finished(client.post("api/check"))
    assert job["state"] == "done", job
    return job["result"]


def answered(client: Client, setting: str, value: Any) -> Any:
    return client.post("api/answer", {"setting": setting, "value": value})


def test_an_answer_is_written_for_the_run_to_come(draft: Studio) -> None:
    client = Client(draft)
    assert client.get("api/answers").json() == {"written": [], "place": ""}
    assert answered(client, "generate.count", "balance").status_code == 400  # nothing was checked yet
    found = checked(client)
    ((sentence, answers),) = found["answers"].items()
    assert sentence in found["warnings"] and LINE in sentence
    assert answers == [{"setting": "generate.count", "value": "balance"}]
    # Only what the check offered can be written: no other value, and nothing that names a file.
    for setting, value in (
        ("generate.count", "all"),
        ("generate.count", 3),
        ("data.root", "/"),
        ("backbone.lora", ["/x"]),
    ):
        assert "answers nothing" in answered(client, setting, value).json()["error"]
    assert answered(client, "generate.count", {"crack": 3}).status_code == 400
    written = [{"setting": "generate.count", "value": "balance", "line": LINE}]
    assert answered(client, "generate.count", "balance").json() == {"written": written, "place": ""}
    assert checked(client)["answers"] == {} and client.get("api/plan").json()["count"] == "balance"
    assert client.post("api/answer/undo", {"setting": "seed"}).status_code == 400
    assert client.post("api/answer/undo", {"setting": "generate.count"}).json()["written"] == []
    assert checked(client)["warnings"] == found["warnings"] and client.get("api/plan").json()["count"] == 50
    client.close()


def test_an_answer_is_written_into_the_run(of_run: Studio) -> None:
    client = Client(of_run)
    folder = of_run.workspace.source
    checked(client)
    place = answered(client, "generate.count", "balance").json()["place"]
    assert place == str(folder / "config.json") and Run.open(folder).config.generate.count == "balance"
    assert checked(client)["answers"] == {}
    client.post("api/answer/undo", {"setting": "generate.count"})
    assert Run.open(folder).config.generate.count == 7
    client.close()


def test_too_few_pictures_for_a_proof_are_answered(unlike: Path, tmp_path: Path) -> None:
    root = tmp_path / "few"
    shutil.copytree(unlike, root)
    for kind in ("test", "ground_truth"):
        shutil.rmtree(root / "magnet" / kind / "chip")
        sorted((root / "magnet" / kind / "crack").iterdir())[1].unlink()
    with serving(Studio(Workspace.open(root))) as started:
        client = Client(started)
        found = checked(client)
        assert not found["ok"] and [{"setting": "prove.enabled", "value": False}] in found["answers"].values()
        answered(client, "prove.enabled", False)
        assert checked(client)["ok"]
        client.close()


def test_a_folder_that_leaves_a_question_is_opened_with_its_answer(unlike: Path, tmp_path: Path) -> None:
    root = tmp_path / "plant"
    for kind in ("crack", "chip"):
        for path in (unlike / "magnet/test" / kind).iterdir():
            label = images.read_mask(unlike / f"magnet/ground_truth/{kind}/{path.stem}_mask.png", (64, 64))
            (root / "parts" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / "parts" / kind / path.name)
            images.write_mask(root / "parts" / kind / f"{path.stem}_mask.png", ~label)
    shutil.copytree(unlike / "magnet/train/good", root / "parts/good")
    with serving(Studio(Workspace.nothing(root), root=root)) as started:
        client = Client(started)
        refused = client.post("api/open", {"folder": "parts"}).json()
        assert "inverted?" in refused["error"]
        wanted = {"setting": "data.mask.inverted", "value": True}
        assert refused["answers"] == [wanted, {**wanted, "value": False}]
        other = {"folder": "parts", "answer": {"setting": "data.layout", "value": "mvtec"}}
        assert "answers nothing" in client.post("api/open", other).json()["error"]
        assert client.post("api/open", {"folder": "parts", "answer": wanted}).status_code == 200
        assert started.workspace.config.data.mask.inverted is True and started.workspace.config.data.layout == "pairs"
        line = {"setting": "data.mask.inverted", "value": True, "line": "data.mask.inverted = true"}
        assert client.get("api/answers").json()["written"] == [line]
        client.close()


def test_pictures_without_a_label_file_are_normal_parts_when_the_page_says_so(unlike: Path, tmp_path: Path) -> None:
    """labelme's usual folder: all pictures in it, those of defects with a file beside them."""
    parts = tmp_path / "plant/parts"
    parts.mkdir(parents=True)
    for number, path in enumerate(sorted((unlike / "magnet/train/good").iterdir())):
        shutil.copy(path, parts / f"good{number}.png")
    shape = {"label": "chip", "points": [[8, 8], [24, 8], [24, 24]], "shape_type": "polygon"}
    for path in (unlike / "magnet/test/chip").iterdir():
        shutil.copy(path, parts / path.name)
        (parts / f"{path.stem}.json").write_text(json.dumps({"version": "5", "shapes": [shape]}))
    with serving(Studio(Workspace.nothing(parts.parent), root=parts.parent)) as started:
        client = Client(started)
        refused = client.post("api/open", {"folder": "parts"}).json()
        assert "have no label file" in refused["error"]
        assert refused["error"].endswith('If they are normal parts, set data.normal = ["."]')  # and no command
        wanted = {"setting": "data.normal", "value": ["."]}
        assert refused["answers"] == [wanted]
        assert client.post("api/open", {"folder": "parts", "answer": wanted}).status_code == 200
        data = started.workspace.config.data
        assert (data.layout, data.normal) == ("labelme", ["."]) and started.workspace.split.normals
        client.close()


@pytest.mark.browser
def test_the_button_writes_and_undoes(opened: Any, draft: Studio) -> None:
    page = opened(draft)
    page.get_by_role("tab", name="Data").click()
    warning = page.locator(".said.warnings li", has_text="fills the gap")
    expect(warning).to_have_count(1, timeout=TIMEOUT)
    button = warning.get_by_role("button", name="Make as many as each type lacks (balance)")
    assert button.get_attribute("title") == LINE
    button.click()
    line = page.locator(".written code")
    expect(page.locator(".written li")).to_contain_text("Make as many as each type lacks", timeout=TIMEOUT)
    expect(line).to_have_text(LINE, timeout=TIMEOUT)
    expect(page.locator(".ready.good")).to_be_visible(timeout=TIMEOUT)
    expect(warning).to_have_count(0)
    assert draft.workspace.config.generate.count == "balance"
    page.get_by_role("tab", name="Generate").click()
    expect(page.get_by_label("How many")).to_have_value("balance")
    # In Korean it is taken back.
    page.get_by_label("Language").select_option("ko")
    page.get_by_role("tab", name="데이터").click()
    page.get_by_role("button", name=f"되돌리기: {LINE}").click()
    expect(page.locator(".said.warnings li", has_text="로 부족한 만큼 채웁니다")).to_have_count(1, timeout=TIMEOUT)
    expect(line).to_have_count(0)
    # The page finds the Korean that the command line finds.
    english = [HOLE.sub("7", one) for one in json.loads(CATALOGUE.read_text(encoding="utf-8"))]
    told = page.evaluate(
        "async (all) => { const { spoken } = await import('./page/words.js'); return all.map(spoken); }", english
    )
    assert told == [in_korean(one) for one in english] and len(told) > 500
    assert draft.workspace.config.generate.count == 50


def test_a_normal_photograph_is_shown_with_the_outline_of_its_part(parts: Studio, unlike: Path) -> None:
    client = Client(parts)
    (product,) = checked(client)["parts"]
    shares = checked(client)["parts"][product]
    assert product == "screw" and set(shares) == {one.id for one in parts.workspace.normals}
    for name, share in shares.items():
        assert 0.02 < share < 0.3
        plain, outlined = (
            cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR).astype(int)
            for answer in (client.get("api/photograph/thumb", name=name, outline=asked) for asked in (False, True))
        )
        green = (plain - outlined)[..., 2] > 40  # of BGR: the red of a grey backdrop is gone there
        rows, columns = np.nonzero(green)
        assert 100 < green.sum() < 0.1 * green.size
        # It runs round the part: what it encloses is about what the part covers.
        hull = cv2.contourArea(cv2.convexHull(np.stack([columns, rows], 1)))
        assert share <= hull / green.size < 3 * share
    client.close()
    with serving(Studio(Workspace.open(unlike))) as surface:
        client = Client(surface)
        assert checked(client)["parts"] == {}  # a surface has no outline to show
        client.close()


@pytest.mark.browser
def test_parts_stand_after_the_damage(opened: Any, parts: Studio) -> None:
    page = opened(parts, part="data")
    tiles = page.locator(".part.data .labelled .cell")
    types = page.get_by_label("Type", exact=True)
    expect(types.locator("option")).to_have_text(["All", "screw: (normal)", "screw: rust"], timeout=TIMEOUT)
    types.select_option("screw: rust")
    legend = page.get_by_text("Green runs round the part")
    expect(legend).not_to_be_visible()
    types.select_option("screw: (normal)")
    expect(legend).to_be_visible()
    expect(tiles).to_have_count(4)
    expect(tiles.first).to_contain_text(re.compile(r"\(normal\) · the part covers \d+ %"))
    types.select_option("All")
    expect(tiles.first).to_contain_text("rust · shot")
    page.get_by_label("Language").select_option("ko")
    expect(legend).to_have_count(0)
    expect(page.locator(".part.data .legend")).to_contain_text("초록 선은 부품의 윤곽")


@pytest.mark.browser
def test_where_nothing_is_open_nothing_is_said_of_it(opened: Any, tmp_path: Path, unlike: Path) -> None:
    with serving(Studio(Workspace.nothing(unlike), root=unlike)) as started:
        page = opened(started)
        page.keyboard.press("Escape")
        expect(page.locator("#source")).to_have_text("")
        expect(page.get_by_label("Type", exact=True)).not_to_be_visible()
        assert page.title() == "flawsmith studio" and page.get_by_text("Nothing is open yet").is_visible()
        started.open(Workspace.open(unlike, tmp_path / "painted"))
        page.reload()
        expect(page.locator("#source")).to_have_text(str(unlike))
        expect(page.get_by_label("Type", exact=True)).to_be_visible()
        assert page.title() == f"{unlike} · flawsmith studio"


@pytest.mark.browser
def test_a_folder_of_normal_parts_alone_leads_to_what_draws_damage(opened: Any, unlike: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(unlike / "magnet/train/good", parts / "good")
    with serving(Studio(Workspace.open(parts))) as started:
        client = Client(started)
        assert checked(client)["ok"] and client.get("api/plan").json()["generator"] == "rendered"
        planned = client.post("api/plan", {"count": 1}).json()
        assert {(row["shots"], row["planned"]) for row in planned["rows"]} == {(0, 1)} and not planned["problem"]
        assert client.get("api/progress").json()["paintable"] is False
        client.close()
        page = opened(started)
        expect(page.locator(".part.data .shown")).to_contain_text("No photograph shows damage.")
        expect(page.get_by_label("Type", exact=True)).not_to_be_visible()
        paint = page.get_by_role("tab", name="Paint")
        expect(paint).to_be_disabled()
        assert "takes after real defects" in paint.get_attribute("title")
        expect(page.locator("#onward p")).to_contain_text("No photograph shows damage, so it is drawn", timeout=TIMEOUT)
        expect(page.locator("#onward button")).to_have_text(["Generate"])
