"""What users see: names, the command line's speed, and that every example in the documents works.

`python tests/test_public.py` writes the tables of docs/configuration.md and of its Korean page anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flawsmith import registry

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "README.ko.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    "examples/notebooks/README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]
BEGIN, END = "<!-- fields: written by tests/test_public.py -->", "<!-- end of fields -->"


# --- names and speed ----------------------------------------------------------------------------------------------


def test_every_public_name_resolves() -> None:
    import flawsmith

    assert sorted(flawsmith.__all__) == list(flawsmith.__all__)
    for name in flawsmith.__all__:
        assert getattr(flawsmith, name) is not None
    assert set(flawsmith.__all__) <= set(dir(flawsmith))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flawsmith.nothing  # noqa: B018


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


@pytest.mark.parametrize("what", ["import flawsmith", "import flawsmith.cli", "import flawsmith.registry"])
def test_importing_is_light(what: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'cv2', 'scipy'}"
    done = python("-c", f"import sys\n{what}\nprint(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def processor_seconds(*words: str) -> float:
    """Least of three: what the processor spent, which busy neighbours lengthen less than the time of the clock."""
    resource = pytest.importorskip("resource", reason="this system does not tell the time its children spent")
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = python(*words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_the_command_line_answers_at_once(words: list[str]) -> None:
    """Half a second where bare Python takes 15 ms; as much more as this machine is slower now."""
    bare = processor_seconds("-c", "pass")
    assert processor_seconds("-m", "flawsmith", *words) < 0.5 * max(1.0, bare / 0.015)


# --- documents ----------------------------------------------------------------------------------------------------


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield (document, text) of each fenced block of a language."""
    for name in DOCUMENTS:
        for found in re.finditer(rf"^```{language}\n(.*?)^```", (ROOT / name).read_text("utf-8"), re.M | re.S):
            yield name, found[1]


def test_toml_in_documents_and_examples_is_accepted() -> None:
    from flawsmith.config import Config, load_config, validate

    seen = 0
    for name, text in blocks("toml"):
        tree = tomllib.loads(text)
        if "project" not in tree:  # a plug-in's pyproject.toml
            _generator(validate(Config, tree, where=name))
            seen += 1
    assert seen > 1
    for path in sorted((ROOT / "examples").glob("*.toml")):
        config = load_config(path, {"data.root": "elsewhere"})
        _generator(config)
        assert path.read_text("utf-8").startswith("#"), f"{path.name}: the head says where to get the photographs"
        for exporter in config.export.formats:
            assert exporter in registry.entries("exports")


def _generator(config: Any) -> None:
    from flawsmith.config import validate

    plugin = registry.get("generators", config.generator.name)
    validate(plugin.Settings, config.generator.settings, where="generator.settings")


def test_commands_in_documents_exist() -> None:
    import typer

    from flawsmith.cli import app
    from flawsmith.config import Config, _set, parse_overrides, validate

    group = typer.main.get_command(app)
    verbs, options = group.commands, {name for parameter in group.params for name in parameter.opts}  # type: ignore[attr-defined]
    seen = set()
    for name, text in blocks("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] != "flawsmith" and not words[0].endswith("/flawsmith"):
                continue
            verb = words[1]
            if verb.startswith("-"):
                assert set(words[1:]) <= options | {"--help"}, f"{name}: {line}"
                continue
            seen.add(verb)
            assert verb in verbs, f"{name}: flawsmith has no verb {verb!r}"
            known = {option for parameter in verbs[verb].params for option in parameter.opts}
            asked = [word.partition("=")[0] for word in words[2:] if word.startswith("-")]
            assert set(asked) <= known, f"{name}: {line}"
            tree: dict[str, Any] = {}
            sets = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
            if verb != "backbone":
                for key, value in parse_overrides(sets).items():
                    _set(tree, key, value)
                validate(Config, tree, where=f"{name}: {line}")
    assert {"new", "check", "run"} <= seen


def test_targets_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for name, text in blocks("bash"):
        for target in re.findall(r"^make ([a-z-]+)", text, re.M):
            assert target in targets, f"{name}: make has no target {target!r}"


def test_python_in_documents_compiles_and_names_exist() -> None:
    import flawsmith

    for name, text in blocks("python"):
        compile(text, name, "exec")
        for attribute in re.findall(r"\bfs\.(\w+)", text):
            assert attribute in flawsmith.__all__, f"{name}: flawsmith has no {attribute!r}"
        for module, names in re.findall(r"^from (flawsmith[\w.]*) import (.+)$", text, re.M):
            if module.startswith("flawsmith.integrations."):
                continue  # their libraries are elsewhere: tests/with_anomalib runs that block whole
            exec(f"from {module} import {names}", {})


def test_links_in_documents_lead_somewhere() -> None:
    for name in DOCUMENTS:
        text = (ROOT / name).read_text("utf-8")
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not target.startswith(("http://", "https://")):
                assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


@pytest.fixture
def stain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The generator of CONTRIBUTING.md, as a user would have it: a file on the path and a variable."""
    source = next(text for name, text in blocks("python") if name == "CONTRIBUTING.md")
    (tmp_path / "stain.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "generators.stain=stain:Stain")
    yield registry.get("generators", "stain")
    sys.modules.pop("stain", None)


def test_the_worked_example_keeps_the_contract(stain: Any, backbone: Any) -> None:
    from flawsmith.testing import check_generator

    check_generator(stain, backbone)


def test_the_worked_example_runs(stain: Any, small_config: dict[str, Any], tmp_path: Path) -> None:
    import flawsmith as fs
    from flawsmith.data import images

    settings = {"generator.name": "stain", "generator.settings": {"grain": 0.4}, "train.steps": 20, "windows.size": 64}
    run = fs.Run.create(tmp_path / "run", fs.load_config(None, {**small_config, **settings}))
    path = fs.run_all(run)
    made = [sample for sample in run.samples() if sample.made]
    assert made and path.exists() and run.path("export", "mvtec").is_dir()
    asked = images.read_mask(run.path(made[0].mask), (128, 128))
    photograph = Path(small_config["data.root"]) / made[0].normal
    painted = fs.paint(run, photograph, asked, made[0].defect)  # with the tone that it learned
    assert painted.mask.any() and painted.provenance.generator == "stain"


def test_the_worked_metric_keeps_the_contract_and_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric of CONTRIBUTING.md, as a user would have it: a file on the path and a variable."""
    import numpy as np

    from flawsmith.testing import check_metric, example_feature_set

    source = next(text for name, text in blocks("python") if name == "CONTRIBUTING.md" and "def contrast(" in text)
    (tmp_path / "contrast.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "metrics.contrast=contrast:contrast")
    contrast = registry.get("metrics", "contrast")
    sys.modules.pop("contrast")
    check_metric(contrast)
    real, faint = example_feature_set(), example_feature_set(20, seed=1)
    faint.image.mul_(0.5)
    (figure,) = contrast(real, faint, np.random.default_rng(0), 0).values()
    assert figure.value == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("folder", ["docs", "docs/ko"])
def test_the_configuration_page_is_of_today(folder: str) -> None:
    page = ROOT / folder / "configuration.md"
    behind = f"{page} is behind the settings: run `python tests/test_public.py`"
    assert page.read_text("utf-8") == _with_fields(page), behind


# --- docs/configuration.md ----------------------------------------------------------------------------------------


HEADS = {
    "docs": ("At the top", "[generator.settings] of {}", "| key | default | what it is |", "none"),
    "ko": ("맨 위", "{}의 [generator.settings]", "| 키 | 기본값 | 설명 |", "없음"),
}


def _with_fields(page: Path) -> str:
    """Return the page of configuration with its tables as the settings are now, in the language of its folder."""
    from flawsmith.korean import in_korean

    head, _, rest = page.read_text("utf-8").partition(BEGIN)
    fields = _fields(HEADS[page.parent.name], in_korean if page.parent.name == "ko" else str)
    return f"{head}{BEGIN}\n{fields}{END}{rest.partition(END)[2]}"


def _fields(heads: tuple[str, ...], say: Callable[[str], str]) -> str:
    """Return a table for each section of the configuration, and for each of our generators' settings."""

    from flawsmith.config import Config, Settings
    from flawsmith.config.settings import sections

    config = Config()
    plain = [name for name, value in config if not isinstance(value, Settings)]
    top, own, *heads = heads
    parts = [f"\n## {top}\n", *_table(config, plain, heads, say)]
    for name, section in sections(config):
        first = (type(section).__doc__ or "").strip().splitlines()[0]
        fields = [field for field, value in section if not isinstance(value, Settings)]
        parts += [f"\n## [{name}]\n", f"{say(first)}\n", *_table(section, fields, heads, say)]
    for name in sorted(registry._OURS["generators"]):
        settings = registry.get("generators", name).Settings()
        parts += [f"\n## {own.format(name)}\n", *_table(settings, list(type(settings).model_fields), heads, say)]
    return "\n".join(parts) + "\n\n"


def _table(settings: Any, names: list[str], heads: list[str], say: Callable[[str], str]) -> list[str]:
    from flawsmith.config import _toml

    head, none = heads
    rows = [head, "|---|---|---|"]
    for name in names:
        text = say(type(settings).model_fields[name].description or "").replace("\n", " ").replace("|", "\\|")
        text = re.sub(r"[<>]", lambda found: {"<": "&lt;", ">": "&gt;"}[found[0]], text)
        value = getattr(settings, name)
        rows.append(f"| `{name}` | {none if value is None else f'`{_toml(value)}`'} | {text} |")
    return rows


if __name__ == "__main__":
    for page in (ROOT / "docs" / "configuration.md", ROOT / "docs" / "ko" / "configuration.md"):
        page.write_text(_with_fields(page), "utf-8")


def test_balance_is_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flawsmith import cli
    from flawsmith.run.folder import Run

    class Seen(Exception):
        pass

    def create(folder: Path, config: object) -> None:
        raise Seen(config.generate.count)  # type: ignore[attr-defined]

    (tmp_path / "seed.toml").write_text(f"data.root = {json.dumps(str(tmp_path))}")
    monkeypatch.setattr(Run, "create", create)
    for words, count in ((["--balance"], "balance"), ([], 50)):
        monkeypatch.setattr("sys.argv", ["flawsmith", "run", str(tmp_path / "seed.toml"), "--out", "x", *words])
        with pytest.raises(Seen) as seen:
            cli.main()
        assert seen.value.args == (count,)


def test_run_goes_on_with_a_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flawsmith import cli
    from flawsmith.config import load_config
    from flawsmith.run.folder import Run

    class Seen(Exception):
        pass

    def create(folder: Path, config: object) -> None:
        raise Seen(str(folder), config.generate.count, config.seed)  # type: ignore[attr-defined]

    run, other = tmp_path / "run", tmp_path / "other"
    Run.create(run, load_config(None, {"seed": 7, "data.root": str(tmp_path)}))
    other.mkdir()
    (tmp_path / "empty.toml").write_text("")
    monkeypatch.setattr(Run, "create", create)
    monkeypatch.setattr("sys.argv", ["flawsmith", "run", str(run), "--set", "generate.count=3"])
    with pytest.raises(Seen) as seen:
        cli.main()
    assert seen.value.args == (str(run), 3, 7)
    for words, said in (
        ([str(run), "--out", "x"], "--out goes with a TOML text file, and a run folder goes on without it"),
        ([str(tmp_path / "empty.toml")], "a TOML file needs --out RUN"),
        ([str(other)], "not a flawsmith run"),
    ):
        monkeypatch.setattr("sys.argv", ["flawsmith", "run", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2 and said in capsys.readouterr().err


def test_the_demo_names_the_studio() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    made, named = (
        re.search(pattern, text) for pattern in (r"flawsmith demo --out (\S+)", r"flawsmith studio ([^\s\"]+)")
    )
    assert made and named and named[1] == f"{made[1]}/run"


# --- the worked exporter ------------------------------------------------------------------------------------------


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The exporter of CONTRIBUTING.md, as a user would have it: a file on the path and a variable."""
    source = next(text for name, text in blocks("python") if name == "CONTRIBUTING.md" and "class Listing" in text)
    (tmp_path / "listing.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "exports.listing=listing:Listing")
    yield registry.get("exports", "listing")
    sys.modules.pop("listing", None)


def test_the_worked_exporter_keeps_the_contract(listing: Any) -> None:
    from flawsmith.testing import check_exporter

    check_exporter(listing)


def test_the_worked_exporter_runs_beside_ours(listing: Any, small_config: dict[str, Any], tmp_path: Path) -> None:
    import csv

    import flawsmith as fs
    from flawsmith.data import images

    settings: dict[str, Any] = {
        "data.products": ["screw"],
        "generator.name": "crop_paste",
        "export.formats": ["mvtec", "listing"],
        "export.settings": {"listing": {"separator": ";"}},
    }
    run = fs.Run.create(tmp_path / "run", fs.load_config(None, small_config | settings))
    fs.run_all(run)
    folder = run.path("export", "listing")
    with open(folder / "listing.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert [row["defect"] for row in rows if row["defect"]] == ["bend"] * len(run.kept())
    for row, sample in zip([row for row in rows if row["mask"]], run.kept(), strict=True):
        assert (images.read(folder / row["image"]) == images.read(run.path(sample.image))).all()
        assert (images.read_mask(folder / row["mask"], (128, 128))).sum() == sample.area
    assert run.record("export")["counts"]["listing"] == {"train": 4, "test": 2 + len(run.kept())}
    assert run.path("export", "mvtec", "provenance.jsonl").is_file()


@pytest.mark.parametrize("name", sorted(registry.entries("generators")))
def test_the_registry_says_of_generators_what_they_say(name: str) -> None:
    """`check` estimates from the entry, which imports nothing."""
    assert registry.entries("generators")[name].controls == registry.get("generators", name).paints_controls
