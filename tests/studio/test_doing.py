"""What a command does at this moment, how long it has been at it, and what is missing when it was stopped."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith.config import overridden
from flawsmith.data import factory
from flawsmith.run.folder import Run
from flawsmith.studio.commands.doing import Step, doing
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace

from .conftest import Client, serving
from .test_making import generated, over
from .test_review_page import TIMEOUT, expect, write_run

MANY = 400


def told(done: float, left: float | None = None, total: float = 10) -> dict[str, Any]:
    return {"what": "generate", "done": done, "total": total, "unit": "samples", "rate": 1.0, "left": left, "note": ""}


def test_what_is_done_now_is_the_work_that_was_told_of_last() -> None:
    now = time.monotonic()
    starting = doing({}, None, now - 5)
    assert (starting.what, round(starting.seconds)) == ("", 5)
    stage = Step(told(0, total=0) | {"what": "prove"}, now - 40, now - 30)
    assert (doing({}, stage, now - 60).what, round(doing({}, stage, now - 60).seconds)) == ("prove", 40)
    plan, made = Step(told(10), now - 30, now - 20), Step(told(4, left=60.0), now - 20, now - 10)
    working = doing({"generate": made, "plan": plan}, stage, now - 60)
    assert (working.what, round(working.seconds)) == ("generate", 20)
    assert working.left is not None and round(working.left) == 50  # it was told ten seconds ago
    assert doing({"generate": Step(told(4, left=0.4), now, now)}, None, now).left is None  # "0 s left" says nothing
    assert doing({"generate": Step(told(4, left=5.0), now - 20, now - 10)}, None, now).left is None
    again = stage.after(stage.told)  # the stage goes on when its work is over, and tells so every 15 seconds
    waiting = doing({"generate": Step(told(10), now - 20, now - 7)}, again, now - 60)
    assert (waiting.what, round(waiting.seconds), waiting.left) == ("prove", 7, None)


def test_work_that_is_done_again_begins_anew() -> None:
    now = time.monotonic()
    first = Step(told(4), now - 50, now - 40)
    assert first.after(told(10)).begun == first.begun
    assert Step(told(10), now - 50, now - 40).after(told(0, total=4)).begun >= now


def test_what_is_missing_is_said(photographs: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", photographs, 6, data_shots=2, screen_enabled=True)
    with serving(Studio(Workspace.open(run.folder))) as studio, closing(Client(studio)) as client:

        def said(*names: str) -> tuple[Any, ...]:
            known = client.get("api/progress").json()
            return tuple(known[name] for name in names)

        assert said("missing", "made", "screened", "usable") == ("proof", 6, 6, True)
        run.forget("screen")
        assert said("missing", "made", "screened", "usable") == ("screening", 6, 0, False)
        run.forget("generate")
        assert said("missing", "usable") == ("controls", False)
        Run.create(run.folder, overridden(run.config, {"screen.enabled": False}))
        assert said("missing", "usable") == ("controls", True)  # before controls: nothing judges the samples
        run.path("samples.jsonl").unlink()
        assert said("missing", "made", "usable") == ("samples", 0, False)


@pytest.mark.browser
def test_the_page_says_what_is_done_and_after_cancel_what_is_missing(opened: Any, tmp_path: Path) -> None:
    factory.write_dataset(tmp_path / "set", "magnet", ["crack"], normals=5, per_defect=6, seed=3, size=64)
    settings = {"data.shots": 3, "generate.batch": 4, "generate.workers": 1}
    with serving(Studio(Workspace.open(tmp_path / "set", None, settings))) as studio, closing(Client(studio)) as client:
        client.finished(client.post("api/check"))
        client.post("api/generate", {"count": MANY})
        over(client, lambda state: generated(state) >= 4)
        assert studio.commands.last is not None
        os.killpg(studio.commands.last.process, signal.SIGSTOP)  # it lasts until the page has seen it
        page = opened(studio, part="generate")
        expect(page.locator(".part.generate .state")).to_have_text("Now: Samples", timeout=TIMEOUT)
        expect(page.locator(".part.generate .cost")).to_be_hidden()  # it tells of the plan, not of what is left
        clock = page.locator(".part.generate .clock")
        expect(clock).to_contain_text(re.compile(r"for \d+:\d\d"))
        before = clock.text_content()
        expect(clock).not_to_have_text(before, timeout=TIMEOUT)  # nothing is told, and time goes on
        expect(page.locator("#onward p")).to_contain_text("Screening is off", timeout=TIMEOUT)
        os.killpg(studio.commands.last.process, signal.SIGCONT)
        page.get_by_role("button", name="Cancel").locator("visible=true").click()
        missing = page.locator(".part.generate .missing")
        expect(missing).to_have_text(re.compile(rf"Still missing: \d+ of {MANY} samples are made\."), timeout=TIMEOUT)
        page.get_by_label("Language").select_option("ko")
        expect(missing).to_contain_text(f"샘플 {MANY}개 중")
        expect(page.locator(".part.generate .cost")).to_be_visible()
