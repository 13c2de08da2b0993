"""What the studio costs: first useful paint, candidates for a drawn mask, scrolling, many requests.

    python benchmarks/suites/studio.py --out /tmp/studio [--quick] [--only PART ...]

Starts `flawsmith studio` as its users do, in a process of its own, on a factory surface of 512 x 512 px, and asks as
the page does. Needs the extra `studio`, Playwright and Chromium (`make test-studio` installs them).

first_paint  milliseconds from the beginning of the navigation to Paint, with an empty cache, until Chromium paints
             anything (`contentful`), until the page can be used (`useful`: tabs and photographs are there), and until
             the first photograph is drawn (`photograph`).
candidates   seconds from the request until one candidate, or four, of `patch_synthesis` are there, for a mask of about
             2,000 px, each with other seeds; and the processor seconds of its workers. `first` is the very first
             request after the start.
on_the_page  the same for four, from the click until Chromium shows their pictures.
scroll       the longest frame while 5,000 samples (hard links to those of a real run) are scrolled from top to end, in
             milliseconds, and how many cells the page holds at most.
requests     after each was asked once: 50 clients at once, then a loop of 2,000 requests: MB by which the studio's
             process grows, answers that were refused.
ended        the processes of this studio, and how many of them are left five seconds after SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from json import dumps, loads
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import cv2
import numpy as np
from scrolling import scroll
from sets import RESULTS

from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.files import write_json
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.records import append_records
from flawsmith.studio.masks import runs_of

_SIDE, _GENERATOR = 512, "patch_synthesis"
_CLIENTS = 50
_PARTS = ("candidates", "on_the_page", "first_paint", "requests", "scroll")
_FULL = {"loads": 15, "paintings": 15, "samples": 5000, "requests": 2000}
_QUICK = {"loads": 1, "paintings": 1, "samples": 100, "requests": 30}
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
_WATCH = """
window.reached = {};
new MutationObserver(() => {
  if (document.documentElement?.dataset.ready === "yes") reached.useful ??= performance.now();
  if (document.querySelector(".status")?.textContent.includes("512 × 512")) reached.photograph ??= performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
"""
_FOUR = """(() => {
  const shown = [...document.querySelectorAll("button.candidate img")];
  return shown.length === 4 && shown.every((one) => one.complete && one.naturalWidth);
})()"""


class Client:
    """Asks a studio as its page does, on a connection of its own."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._path, self._origin = parts.path, f"{parts.scheme}://{parts.netloc}"
        self._connection = HTTPConnection(parts.netloc, timeout=120)

    def ask(self, path: str, body: Any = None, **query: Any) -> tuple[int, bytes]:
        """Return status and answer; with a body the request is a POST."""
        where = f"{self._path}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"origin": self._origin, "content-type": "application/json"}
        content = None if body is None else dumps(body)
        self._connection.request("GET" if body is None else "POST", where, content, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def json(self, path: str, body: Any = None, **query: Any) -> Any:
        """Return the values of an answer."""
        status, content = self.ask(path, body, **query)
        assert status == 200, content
        return loads(content)

    def paint(self, asked: dict[str, Any]) -> None:
        """Ask for candidates, and wait until all are there."""
        job = self.json("api/paint", asked)
        while job["state"] in ("waiting", "running"):
            time.sleep(0.01)
            job = self.json(f"api/job/{job['job']}")
        made = job["result"].get("candidates", [])
        assert job["state"] == "done" and all("name" in one for one in made), job


@contextmanager
def started(source: Path, painted: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `flawsmith studio` on a folder; give its process and its address."""
    words = [sys.executable, "-m", "flawsmith", "studio", str(source), "--no-browser"]
    words += ["--out", str(painted)] if painted else []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "http" not in line:
            raise SystemExit(f"studio.py: the studio did not start: {line!r}")
        yield process, line.split()[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        process.stdout.close()


def family(process: int) -> list[int]:
    """Return the ids of a process and of all that it started and that still run."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def processor_seconds(process: int) -> float:
    """Return the processor seconds of a studio's workers so far; its server answers our questions meanwhile."""
    ticks = 0
    for one in family(process)[1:]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def megabytes(process: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def summary(seconds: list[float], digits: int = 3) -> dict[str, Any]:
    """Return median and extremes of timings, and each of them."""
    each = [round(value, digits) for value in seconds]
    return {"median": round(statistics.median(each), digits), "least": min(each), "most": max(each), "each": each}


def drawn() -> np.ndarray:
    """Return the mask that is painted into: an oblique ellipse of about 2,000 px."""
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    cv2.ellipse(mask, (250, 270), (40, 16), 30, 0, 360, 1, -1)
    return mask.astype(bool)


def awaited(page: Any, true: str) -> None:
    """Wait until an expression is true on the page, whose rules let no script but its own wait for that."""
    deadline = time.monotonic() + 300
    while not page.evaluate(true):
        if time.monotonic() > deadline:
            raise SystemExit(f"studio.py: the page did not come to this in 5 minutes: {true}")
        time.sleep(0.01)


def first_paint(browser: Any, address: str, loads: int) -> dict[str, Any]:
    """Measure loads of the page with nothing in the browser's cache."""
    rows = []
    for _ in range(loads):
        context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="en-GB")
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.goto(f"{address}#paint")
        awaited(page, "Boolean(window.reached.useful && window.reached.photograph)")
        reached = page.evaluate("window.reached")
        paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        awaited(page, f"{paint} !== undefined")
        rows.append({"contentful": page.evaluate(paint), **reached})
        context.close()
    return {name: summary([row[name] for row in rows], 0) for name in ("contentful", "useful", "photograph")}


def candidates(process: int, address: str, times: int) -> dict[str, Any]:
    """Measure one candidate and four, in turn."""
    client = Client(address)
    source = client.json("api/source")
    mask = drawn()
    asked = {
        "photograph": source["photographs"][0]["id"],
        "mask": [int(value) for value in runs_of(mask)],
        "defect": "crack",
        "generator": _GENERATOR,
    }
    begun = time.perf_counter()
    client.paint({**asked, "seed": 0, "count": 1})
    first = time.perf_counter() - begun
    walls: dict[int, list[float]] = {1: [], 4: []}
    spent: dict[int, list[float]] = {1: [], 4: []}
    for number in range(times):
        for count in (1, 4):
            before, begun = processor_seconds(process), time.perf_counter()
            client.paint({**asked, "seed": 10 * (number + 1) + count, "count": count})
            walls[count].append(time.perf_counter() - begun)
            spent[count].append(processor_seconds(process) - before)
    rows = {
        name: {"seconds": summary(walls[count]), "processor_seconds": summary(spent[count], 2)}
        for name, count in (("one", 1), ("four", 4))
    }
    return {"mask_pixels": int(mask.sum()), "first": round(first, 3), **rows}


def on_the_page(browser: Any, address: str, mask: Path, times: int) -> dict[str, Any]:
    """Measure in Chromium: from the click until four pictures are shown."""
    context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="en-GB")
    page = context.new_page()
    page.goto(f"{address}#paint")
    page.wait_for_selector("html[data-ready=yes]")
    awaited(page, "document.querySelector('.status')?.textContent.includes('512 × 512')")
    page.locator("input[type=file]").set_input_files(mask)
    page.get_by_label("Defect type").locator("visible=true").select_option("crack")
    page.get_by_label("Generator").locator("visible=true").select_option(_GENERATOR)
    took = []
    for _ in range(times):
        page.get_by_role("button", name="Another seed").click()
        begun = time.perf_counter()
        page.get_by_role("button", name="Make 4 candidates").click()
        awaited(page, _FOUR)
        took.append(time.perf_counter() - begun)
        page.get_by_role("button", name="Reject all").click()
        awaited(page, "!document.querySelector('button.candidate')")
    context.close()
    return summary(took)


def scrolled(browser: Any, out: Path, photographs: Path, count: int) -> dict[str, Any]:
    """Measure the review of many samples."""
    folder = out / f"run-{count}"
    if not folder.is_dir():
        many_samples(folder, photographs, count)
    with started(folder) as (_, address):
        context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="en-GB")
        page = context.new_page()
        page.goto(f"{address}#review")
        shown = f"document.querySelector('.part.review .bar output')?.textContent.includes('{count} shown')"
        awaited(page, shown)
        figures = scroll(page)
        context.close()
    return {"samples": count, **figures}


def many_samples(folder: Path, photographs: Path, count: int) -> None:
    """Make a run of 40 samples, and lines with links to their files for as many as are asked for."""
    from flawsmith.synthesis.generate import generate
    from flawsmith.synthesis.train import train

    made_in = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(made_in, ignore_errors=True)
    table = {"data.root": str(photographs), "generator.name": "crop_paste", "generate.count": 20}
    run = Run.create(made_in, load_config(None, {**table, "prove.enabled": False}))
    train(run)
    generate(run)
    first = [sample for sample in run.samples() if sample.made]
    lines = []
    for number in range(len(run.samples()), count):
        like = first[number % len(first)]
        names = {"image": f"samples/{number:06d}.png", "mask": f"samples/{number:06d}.mask.png"}
        for name, file in names.items():
            run.path(file).hardlink_to(run.path(getattr(like, name)))
        lines.append(replace(like, index=number, **names))
    append_records(run.path("samples.jsonl"), lines)
    made_in.rename(folder)


def requested(process: int, address: str, count: int) -> dict[str, Any]:
    """Measure memory over many requests for what a page asks: the source, tiles, thumbnails."""
    names = [one["id"] for one in Client(address).json("api/source")["photographs"]]
    refused: list[int] = []

    def ask(client: Client, number: int) -> None:
        name = names[number % len(names)]
        tile = {"name": name, "level": 0, "column": 0, "row": 0}
        places = [("api/source", {}), ("api/photograph/tile", tile), ("api/photograph/thumb", {"name": name})]
        place, query = places[number % 3]
        status, _ = client.ask(place, **query)
        if status != 200:
            refused.append(status)

    def at_once(first: int) -> None:
        client = Client(address)
        for number in range(4):
            ask(client, first + number)

    warm = Client(address)
    for number in range(3 * len(names)):
        ask(warm, number)
    before = megabytes(process)
    threads = [threading.Thread(target=at_once, args=(number,)) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after_clients = megabytes(process)
    client, begun = Client(address), time.perf_counter()
    for number in range(count):
        ask(client, number)
    return {
        "clients_at_once": _CLIENTS,
        "requests": count,
        "per_second": round(count / (time.perf_counter() - begun), 1),
        "refused": len(refused),
        "megabytes_before": round(before, 1),
        "megabytes_grown_by_clients": round(after_clients - before, 1),
        "megabytes_grown_by_requests": round(megabytes(process) - after_clients, 1),
    }


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where photographs and runs go")
    parser.add_argument("--quick", action="store_true", help="few of everything: whether it works, and no result")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS, help="these alone, and no result")
    args = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise SystemExit("studio.py: Playwright is not installed; `make test-studio` installs it") from None
    if _CHROMIUM is None:
        raise SystemExit("studio.py: there is no Chromium; apt install chromium")
    args.out.mkdir(parents=True, exist_ok=True)
    few = _QUICK if args.quick else _FULL
    photographs, mask = args.out / "photographs", args.out / "mask.png"
    if not photographs.is_dir():
        factory.write_dataset(photographs, "magnet", ("crack", "chip"), normals=12, per_defect=8, seed=5, size=_SIDE)
    images.write_mask(mask, drawn())
    load = os.getloadavg()[0]
    rows: dict[str, Any] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        with started(photographs, args.out / "painted") as (process, address):
            measures: dict[str, Callable[[], dict[str, Any]]] = {
                "candidates": lambda: candidates(process.pid, address, few["paintings"]),
                "on_the_page": lambda: on_the_page(browser, address, mask, few["paintings"]),
                "first_paint": lambda: first_paint(browser, address, few["loads"]),
                "requests": lambda: requested(process.pid, address, few["requests"]),
            }
            for name, measure in measures.items():
                if name in args.only:
                    rows[name] = measure()
                    print(name, {key: value for key, value in rows[name].items() if key != "each"}, flush=True)
            processes = family(process.pid)
        ended = time.monotonic()
        while (left := [one for one in processes if Path(f"/proc/{one}").exists()]) and time.monotonic() - ended < 5:
            time.sleep(0.1)
        rows["ended"] = {"processes": len(processes), "left": len(left)}
        if "scroll" in args.only:
            rows["scroll"] = scrolled(browser, args.out, photographs, few["samples"])
            print("scroll", rows["scroll"], flush=True)
        used = {**machine(), "chromium": browser.version}
        browser.close()
    used |= {"load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1)}
    whole = not args.quick and set(args.only) == set(_PARTS)
    target = (RESULTS if whole else args.out) / "studio.json"
    write_json(target, {"machine": used, "side": _SIDE, "generator": _GENERATOR, **rows})
    print(target)


if __name__ == "__main__":
    main()
