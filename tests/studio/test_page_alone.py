"""Modules of the page without a browser, in node: what must hold while an answer is still on its way."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")

from flawsmith.studio.server import PAGE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the page's modules alone need node")
STUB = Path(__file__).with_name("page_stub.mjs")

HEAD = """
import { serve, soon } from "./page_stub.mjs";
const tell = (value) => console.log(JSON.stringify(value));
"""
REDRAW = """
const { Redraw } = await import("./redraw.js");
const facts = { 1: [0, 5], 2: [5050, 3] };
let gate = null;
serve(async (address) => {
  const name = address.match(/sample\\/(\\d+)\\//)[1];
  if (gate) await gate;
  return { width: 100, height: 100, range: [0, 255], depth: 8, name, mask: facts[name] };
});
const sent = [];
const drawing = new Redraw({ redraw: async (sample, mask) => sent.push([sample.index, mask]) }, () => drawing.close());
const draw = (y) => {
  drawing.view.mask.row(y, 0, 50, 1);
  drawing.view.mask.commit();
  drawing.tools.changed();
};
await drawing.open({ index: 1 });
draw(20);
const first = drawing.save.disabled;
drawing.close();
let arrived;
gate = new Promise((resume) => { arrived = resume; });
const opening = drawing.open({ index: 2 });
const early = { disabled: drawing.save.disabled, picture: drawing.view.picture, mask: drawing.view.mask };
await drawing.save.listeners.click();
await soon();
const tooEarly = sent.length;
arrived();
await opening;
draw(30);
await drawing.save.listeners.click();
await soon();
tell({ first, early, tooEarly, sent });
"""
NAMES = """
const { nameOf } = await import("./work.js");
tell(["prove, features", "prove tile\\nx", "screen, fit", "plan (nsa, for the proof)", " odd"].map(nameOf));
"""
KEPT = """
const { Paint } = await import("./paint.js");
const facts = { name: "a.png", product: "tile", width: 10, height: 10, depth: 8, range: [0, 255], fit: [0, 255] };
serve(async (address) => (address.includes("photograph?") ? facts : []));
const generators = [{ name: "nsa", summary: "" }];
const photographs = [{ id: "a.png", product: "tile" }];
const source = (root) => ({ root, painted: "", defects: { tile: ["hole"] }, generators, photographs });
const counted = async (root) => {
  const paint = new Paint(document.createElement("div"), source(root));
  await soon();
  return paint;
};
const before = await counted("/sets/one");
before.mask.row(3, 2, 7, 1);
before.mask.commit();
before.tools.changed();
const same = (await counted("/sets/one")).mask.count;
const other = (await counted("/sets/other")).mask.count;
tell({ same, other });
"""
OPENED = """
const { post, shows } = await import("./api.js");
const heard = [];
serve(async (address, { headers }) => heard.push(headers["x-flawsmith-opened"] ?? null));
await post("check");
shows(3);
await post("review", { sample: 1 });
tell(heard);
"""


def told(script: str, folder: Path) -> Any:
    """Return what a script tells that runs beside the page's modules."""
    for module in PAGE.glob("*.js"):
        shutil.copy(module, folder)
    shutil.copy(STUB, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    head = (
        'import { serve, soon } from "./page_stub.mjs";\nconst tell = (value) => console.log(JSON.stringify(value));\n'
    )
    (folder / "test.js").write_text(f"{head}{script}\nprocess.exit(0);\n")
    assert NODE is not None
    done = subprocess.run([NODE, "test.js"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_mask_is_never_saved_for_another_sample(tmp_path: Path) -> None:
    seen = told(REDRAW, tmp_path)
    assert seen["first"] is False
    assert seen["early"] == {"disabled": True, "picture": None, "mask": None} and seen["tooEarly"] == 0
    assert seen["sent"] == [[2, [3000, 50, 5050, 3]]]


def test_any_work_has_a_name(tmp_path: Path) -> None:
    assert told(NAMES, tmp_path) == ["prove: step.features", "prove tile\nx", "screen, fit", "work.forProof", " odd"]


def test_a_drawing_is_not_taken_to_another_set(tmp_path: Path) -> None:
    assert told(KEPT, tmp_path) == {"same": 5, "other": 0}


def test_the_page_says_which_source_it_shows(tmp_path: Path) -> None:
    assert told(OPENED, tmp_path) == [None, "3"]
