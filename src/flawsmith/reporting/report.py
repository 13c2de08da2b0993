"""Show what a run made: report.html (one file, no network), and report.md with its pictures in report/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flawsmith.config import Config, affecting
from flawsmith.errors import RunError
from flawsmith.files import digest, write_text
from flawsmith.korean import in_korean, language
from flawsmith.reporting.collect import collect
from flawsmith.reporting.html import html_page
from flawsmith.reporting.markdown import write_markdown
from flawsmith.reporting.sections import document_of
from flawsmith.run.folder import Run
from flawsmith.run.review import FILE as REVIEWS
from flawsmith.run.stage import FOLLOWS, Inputs, is_done, stage
from flawsmith.run.unchanged import require_unchanged_photographs


def report(run: Run) -> Path:
    """Write both reports, in Korean where FLAWSMITH_LANG asks for it, and return the path of report.html.

    Every sample is compared with its photograph first. When one breaks the exact-background rule, the reports are
    written all the same and say so, and then this raises.

    Raises:
        RunError: the run has no data yet, or a sample differs from its photograph outside its mask, has an empty
            mask, cannot be read or was changed since; names the first. Or another photograph was changed.
    """
    path = run.path("report.html")
    with stage(run, "report", _inputs(run), there=lambda: False) as work:
        facts = collect(run)
        document = document_of(facts)
        if language() == "ko":
            document = document.said(in_korean, "ko")
        write_text(path, html_page(document))
        run.path("report")  # its pictures' folder: a link that leads elsewhere is refused
        write_markdown(document, run.path("report.md"))
        exact = facts.exact
        work.what = f"{exact.samples} samples compared"
        if not exact.holds:
            more = len(exact.wrong) - 3
            first = "\n".join(exact.wrong[:3]) + (f"\nand {more} more" if more > 0 else "")
            raise RunError(
                f"{path}: written, but the exact-background check failed; a photograph or a made file was changed "
                f"since; put the photograph back, or delete the made pictures and run again:\n{first}"
            )
        require_unchanged_photographs(run)
    return path


def is_reported(run: Run) -> bool:
    """Return whether the reports on disk are of this configuration, these weights, these samples and this language."""
    return is_done(run, "report", _inputs(run), [run.path("report.html"), run.path("report.md")])


def _inputs(run: Run) -> Inputs:
    """Return what the reports show: every setting, and what every stage made."""
    stages = {name: run.stage_hash(name) or "" for name in FOLLOWS if name != "report"}
    samples = digest([sample.to_json() for sample in run.samples()])
    decided = {"standing": run.samples_hash()} if run.path(REVIEWS).is_file() else {}
    # A record that names no language is of an earlier release, whose reports are English.
    said = {"language": language()} if language() != "en" or "language" in _recorded(run) else {}
    return Inputs(affecting(run.config), affecting(Config()), {**stages, "samples": samples, **decided, **said})


def _recorded(run: Run) -> Mapping[str, Any]:
    """Return the content that the reports on disk were made of; {} = there are none."""
    inputs: Mapping[str, Any] = run.record("report").get("inputs") or {}
    content: Mapping[str, Any] = inputs.get("content") or {}
    return content
