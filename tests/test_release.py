"""The version in its one place, and what follows from it: changelog, citation, workflow."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

import flawsmith
from flawsmith.version import VERSION

ROOT = Path(__file__).parents[1]


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/flawsmith/version.py"
    assert flawsmith.__version__ == VERSION and re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", VERSION)


def test_the_changelog_has_what_comes_and_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[0] == "[Unreleased]" and headings[1].startswith(f"[{VERSION}]")


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(citation)
    assert (str(citation["version"]), citation["license"]) == (VERSION, "Apache-2.0")


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "docs/install.md").read_text("utf-8"), re.M)
    assert sorted(project["optional-dependencies"]) == sorted(
        name for row in rows for name in re.findall(r"`(\w+)`", row)
    )


def test_the_workflow_does_what_the_script_does() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text("utf-8"))
    steps = workflow["jobs"]["checks"]["steps"]
    assert ".ci/run" in [step.get("run") for step in steps]
    listed = subprocess.run(["git", "ls-files", "-s", ".ci/run"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode or listed.stdout.startswith("100755"), ".ci/run cannot be executed"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for version in workflow["jobs"]["checks"]["strategy"]["matrix"]["python"]:
        assert f"Programming Language :: Python :: {version}" in project["project"]["classifiers"]


def test_every_target_of_the_script_is_in_the_makefile() -> None:
    targets = re.findall(r"^([.\w/-]+|\$\(\w+\)/\.installed):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    asked = re.findall(r"^\s*(?:if )?make ([.\w/-]+)", (ROOT / ".ci/run").read_text("utf-8"), re.M)
    assert len(asked) > 8
    for target in asked:
        assert target in targets, f".ci/run asks make for {target}"
