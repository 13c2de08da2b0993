"""From left to right: on which part the page opens, what comes next, what it will cost, and what is not shown."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith.config import load_config
from flawsmith.data import factory
from flawsmith.evaluation.statistics import MEAN
from flawsmith.files import write_json
from flawsmith.korean import in_korean
from flawsmith.preflight.check import check
from flawsmith.run.folder import Run
from flawsmith.studio.commands.progress_routes import verdict_of
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace

from .conftest import Client, serving
from .test_review_page import TIMEOUT, expect, write_run

MADE = 6


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts") / "photographs"
    factory.write_dataset(root, "magnet", ["crack"], normals=5, per_defect=6, seed=3, size=64)
    return root


@pytest.fixture
def folder(parts: Path) -> Iterator[Studio]:
    with serving(Studio(Workspace.open(parts))) as started:
        yield started


@pytest.fixture
def of_run(photographs: Path, tmp_path: Path) -> Iterator[Studio]:
    run = write_run(tmp_path / "run", photographs, MADE, data_shots=2, prove_enabled=True)
    with serving(Studio(Workspace.open(run.folder))) as started:
        yield started


def proven(run: Run, verdicts: dict[str, str], seeds: int = 3) -> Run:
    """Write a proof: of each product its verdict, or "cannot tell"."""
    tested = "deep/test/crack/000.png"
    products: dict[str, Any] = {}
    for product, verdict in verdicts.items():
        low, high = {"helps": (0.02, 0.2), "harms": (-0.2, -0.02)}.get(verdict, (-0.1, 0.1))
        row = {"arm": "ours", "against": "real-only", "task": "localization", "difference": (low + high) / 2}
        row |= {"low": low, "high": high, "verdict": verdict, "corrected_verdict": verdict}
        auroc = 0.4 if verdict == "cannot tell" else 0.9
        products[product] = {
            "comparisons": [row | {"defect": defect} for defect in ("crack", MEAN)],
            "arms": {"real-only": {"figures": {"localization": {MEAN: {"auroc": {"mean": auroc}}}}}},
            "telling": [{"what": "gained", "id": tested, "defect": "crack", "change": 0.1}],
            "notes": ["trained on tiles", f"crack: {product} has few test pictures"],
        }
    facts = {"generator": "perlin", "detectors": ["probe"], "confidence": 0.95, "seeds": seeds, "reduced": []}
    write_json(run.path("proof.json"), {**facts, "products": products})
    run.finish("prove", "prove", {"settings": {}, "content": {"samples": run.samples_hash()}})
    return run


def test_the_page_opens_where_the_next_step_is(of_run: Studio, parts: Path, tmp_path: Path) -> None:
    run = of_run.workspace.run
    assert run is not None
    empty = Run.create(tmp_path / "empty", load_config(None, {"data.root": str(parts)}))
    partly = Run.create(tmp_path / "partly", run.config)
    partly.path("samples.jsonl").write_bytes(run.path("samples.jsonl").read_bytes())
    for source, wanted in ((parts, "data"), (empty.folder, "data"), (partly.folder, "generate")):
        with serving(Studio(Workspace.open(source))) as started:
            client = Client(started)
            assert client.get("api/progress").json()["first"] == wanted
            client.close()
    client = Client(of_run)
    known = client.get("api/progress").json()
    assert known["first"] == "review" and known["complete"] and known["provable"] and not known["verdict"]
    assert (known["made"], known["stands"]) == (MADE, MADE - 2)
    client.post("api/review", {"sample": 1, "word": "reject"})
    assert client.get("api/progress").json()["stands"] == MADE - 3
    proven(run, {"magnet": "helps", "deep": "no effect"})
    known = client.get("api/progress").json()
    assert known["first"] == "proof" and known["verdict"] == "helps"
    client.close()


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        (("helps", "helps"), "helps"),
        (("no effect", "harms"), "harms"),
        (("helps", "harms"), "mixed"),
        (("no effect", "cannot tell"), "no effect"),
        (("cannot tell", "cannot tell"), "cannot tell"),
    ],
)
def test_the_word_for_all_products(tmp_path: Path, photographs: Path, verdicts: tuple[str, str], word: str) -> None:
    run = Run.create(tmp_path / "run", load_config(None, {"data.root": str(photographs)}))
    assert verdict_of(run) == ""
    assert verdict_of(proven(run, dict(zip(("magnet", "deep"), verdicts, strict=True)))) == word


def test_the_cost_is_that_of_check_and_follows_the_form(folder: Studio) -> None:
    client = Client(folder)
    asked: dict[str, Any] = {"count": 40, "generator": "crop_paste"}
    assert client.post("api/plan", asked).json()["cost"] is None  # nothing was looked over yet
    facts, divided = client.finished(client.post("api/check"))["result"]["facts"], folder.workspace.split
    assert facts["photographs"] == len(divided.shots) + len(divided.normals) and facts["defects"] == [
        ["magnet", "crack", 6]
    ]
    for count, steps in ((40, {}), (4000, {}), (40, {"generate.controls": 1.0})):
        cost = client.post("api/plan", {**asked, "count": count, "values": steps}).json()["cost"]
        config = load_config(None, {"data.root": str(folder.workspace.source), "generator.name": "crop_paste"})
        changed = {"generate.count": count, **steps}
        wanted = check(load_config(None, {**config.model_dump(mode="json"), **changed})).estimate
        assert {name: cost["lines"][name] for name in ("training", "generating", "memory")} == {
            name: wanted[name] for name in ("training", "generating", "memory")
        }
    assert client.post("api/plan", {**asked, "count": {"crack": 0}}).json()["cost"] == {"lines": {}, "warnings": []}
    first = client.post("api/plan", {"count": 40, "generator": "auto"}).json()["cost"]
    assert any("chosen first" in sentence for sentence in first["warnings"])
    client.close()


def test_the_proof_says_its_cost(of_run: Studio) -> None:
    client = Client(of_run)
    assert client.post("api/proof/plan", {"values": {}}).json()["cost"] is None
    client.finished(client.post("api/check"))
    lines = [
        client.post("api/proof/plan", {"values": values}).json()["cost"]["lines"]
        for values in ({}, {"prove.seeds": 6}, {"prove.seeds": 6, "prove.size": 768})
    ]
    assert all(
        set(one) - {"measuring"} == {"samples to compare with", "proof", "memory of the proof", "assumes"}
        for one in lines
    )
    trainings = [int(one["proof"].partition("(")[2].split()[0]) for one in lines]
    assert trainings[0] * 2 == trainings[1] == trainings[2]
    gigabytes = [float(one["memory of the proof"].split()[1]) for one in lines]
    assert gigabytes[0] == gigabytes[1] < gigabytes[2]
    client.close()


def test_a_proof_without_a_rival_says_so_before_it_begins(photographs: Path, tmp_path: Path) -> None:
    """A run of the generator that proofs compare with by default can be proven from the page."""
    run = write_run(tmp_path / "run", photographs, MADE, data_shots=2, generator_name="crop_paste")
    with serving(Studio(Workspace.open(run.folder))) as studio, closing(Client(studio)) as client:
        notes = [
            client.post("api/proof/plan", {"values": values}).json()["note"]
            for values in ({}, {"prove.against": '["perlin"]'})
        ]
    assert "crop_paste, which it compares with by default" in notes[0] and not notes[1]
    assert "효과 검증" in in_korean(notes[0]) and " the " not in in_korean(notes[0])


@pytest.mark.browser
def test_a_folder_opens_on_data_and_leads_to_generate(opened: Any, folder: Studio) -> None:
    page = opened(folder)
    assert page.url.endswith("#data")
    expect(page.locator("#onward p")).to_contain_text("Next: say how many", timeout=TIMEOUT)
    page.locator("#onward").get_by_role("button", name="Generate").click()
    expect(page.get_by_role("tab", name="Generate")).to_be_focused()
    cost = page.locator(".part.generate .cost")
    expect(cost).to_contain_text("generating", timeout=TIMEOUT)
    before = cost.text_content()
    page.get_by_role("spinbutton", name="Of each type").fill("5000")
    expect(cost).not_to_have_text(before, timeout=TIMEOUT)
    # The help of every setting, the generator's own too, is in Korean where the catalogue holds it.
    page.get_by_label("Generator").locator("visible=true").select_option("perlin")
    page.get_by_label("Language").select_option("ko")
    page.get_by_text("이 생성기의 설정").click()
    client = Client(folder)
    fields = client.get("api/plan/generator", name="perlin").json()
    client.close()
    assert fields and all(re.search("[가-힣]", in_korean(field["help"])) for field in fields)
    for field in fields:
        shown = page.locator(f"#setting-{field['name'].replace('.', '-')}-help")
        expect(shown).to_have_text(in_korean(field["help"]))
    expect(cost).to_contain_text("예상 비용")


@pytest.mark.browser
def test_nothing_is_begun_before_the_page_knows_what(opened: Any, folder: Studio) -> None:
    page, held = opened(folder), []
    page.route("**/api/plan", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    page.get_by_role("tab", name="Generate").click()
    begin = page.get_by_role("button", name="Make them")
    expect(page.get_by_label("Run folder", exact=True)).not_to_have_value("")
    expect(begin).to_be_disabled()
    page.unroute("**/api/plan")
    page.get_by_role("spinbutton", name="Of each type").fill("7")
    expect(begin).to_be_enabled(timeout=TIMEOUT)
    expect(page.locator(".part.generate .command")).to_contain_text("flawsmith run")


@pytest.mark.browser
def test_what_means_nothing_is_left_out(opened: Any, of_run: Studio) -> None:
    run = of_run.workspace.run
    assert run is not None
    proven(run, {"deep": "cannot tell", "magnet": "helps"})
    page = opened(of_run)
    assert page.url.endswith("#proof")
    expect(page.locator(".proven .warn")).to_have_count(0)  # three seeds are enough
    leads = page.locator(".proven .lead")
    expect(leads.nth(0)).to_contain_text("This proof cannot tell of deep")
    expect(leads.nth(1)).to_contain_text("magnet: the samples help")
    expect(page.locator(".proven svg.intervals")).to_have_count(1)  # magnet's
    expect(page.locator(".proven .tiles .sample")).to_have_count(1)
    expect(page.locator(".proven .tiles .sample .name")).to_have_text("+10.0 crack")
    expect(page.get_by_text("are left out")).to_be_visible()
    expect(page.locator("#onward p")).to_contain_text(f"export the {MADE - 2}")
    proven(run, {"deep": "cannot tell", "magnet": "helps"}, seeds=2)
    page.reload()
    expect(page.locator(".proven .warn")).to_have_text("This is a first look with 2 seeds (a verdict needs 3).")
    expect(page.locator(".proven ul li")).to_have_text(
        ["trained on tiles", *(f"{name}: crack: {name} has few test pictures" for name in ("deep", "magnet"))]
    )
    page.get_by_label("Language").select_option("ko")
    expect(page.locator(".proven .warn")).to_have_text("시드 2개로 한 맛보기 결과입니다(판정에는 3개가 필요합니다).")
    page.get_by_label("언어").select_option("en")
    proven(run, {"deep": "cannot tell", "magnet": "cannot tell"}, seeds=2)
    page.reload()
    expect(page.locator(".proven .lead").nth(1)).to_contain_text("cannot tell of magnet")
    expect(page.locator(".proven .warn")).to_have_count(0)  # there is no verdict that could be a first look
    page.wait_for_selector("html[data-ready=yes]")
    expect(page.locator(".proven svg.intervals, .proven .tiles")).to_have_count(0)
    expect(page.locator("#onward p")).to_contain_text("Start the proof again")
    page.locator("#onward").get_by_role("button", name="Export").click()
    expect(page.get_by_role("tab", selected=True)).to_have_text("Export")
    expect(page.locator("#onward p")).to_have_count(0)
    tree = json.loads(run.path("proof.json").read_text("utf-8"))
    assert len(tree["products"]["deep"]["comparisons"]) == 2  # what is not shown is not lost


@pytest.mark.browser
@pytest.mark.parametrize(("part", "purpose"), [("generate", "prove"), ("proof", "generate"), ("export", "generate")])
def test_a_part_waits_for_the_command_of_another(opened: Any, of_run: Studio, part: str, purpose: Any) -> None:
    run = of_run.workspace.run
    assert run is not None
    held = of_run.commands.start(purpose, ["check", str(run.folder / "config.json")], run.folder).process
    os.kill(held, signal.SIGSTOP)  # it lasts until the page has seen it
    page = opened(of_run, part=part)
    begin = page.locator(f".part.{part} .work button").first
    expect(page.locator(f".part.{part} .state")).to_contain_text("Something else is at work")
    expect(begin).to_be_disabled()
    os.kill(held, signal.SIGCONT)
    expect(begin).to_be_enabled(timeout=TIMEOUT)  # however the command ended, and without a reload
    expect(page.locator(f".part.{part} .command")).to_contain_text("flawsmith")


@pytest.mark.browser
def test_the_formats_that_were_chosen_outlive_a_reload(opened: Any, of_run: Studio) -> None:
    page = opened(of_run, part="export")
    page.get_by_role("checkbox", name="mvtec MVTec AD's folder").uncheck()
    page.get_by_label("coco").check()
    page.reload()
    expect(page.get_by_label("coco")).to_be_checked()
    expect(page.get_by_role("checkbox", name="mvtec MVTec AD's folder")).not_to_be_checked()
    expect(page.locator(".part.export .command")).to_contain_text("coco")


@pytest.mark.browser
def test_a_plan_that_cannot_be_is_not_begun(opened: Any, folder: Studio) -> None:
    page = opened(folder, part="generate")
    begin, number = page.get_by_role("button", name="Make them"), page.get_by_role("spinbutton", name="Of each type")
    expect(begin).to_be_enabled(timeout=TIMEOUT)
    number.fill("-5")
    expect(page.locator(".part.generate .bad")).to_contain_text("generate.count", timeout=TIMEOUT)
    expect(begin).to_be_disabled()
    number.fill("5")
    expect(begin).to_be_enabled(timeout=TIMEOUT)


@pytest.mark.browser
def test_a_number_that_was_typed_outlives_another_part(opened: Any, folder: Studio) -> None:
    page = opened(folder, part="generate")
    expect(page.get_by_label("Run folder", exact=True)).not_to_have_value("", timeout=TIMEOUT)
    count = page.get_by_role("spinbutton", name="Of each type")
    count.fill("4")
    page.get_by_role("tab", name="Data").click()
    page.get_by_role("tab", name="Generate").click()
    page.wait_for_load_state("networkidle")
    expect(count).to_have_value("4")
