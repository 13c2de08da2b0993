"""registry.py: names to plug-ins, imported when asked for and not before."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flawsmith import registry
from flawsmith.config import Config
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator

OURS = [(family, name) for family in registry.FAMILIES for name in registry.entries(family)]


@pytest.mark.parametrize("family, name", OURS, ids=lambda x: x)
def test_every_entry_can_be_imported(family: str, name: str):
    entry = registry.entries(family)[name]
    module, colon, attribute = entry.target.partition(":")
    assert colon and module.startswith(f"flawsmith.{family}.") and attribute.isidentifier()
    assert entry.summary and "\n" not in entry.summary
    found = registry.get(family, name)
    assert callable(found) and found.__module__ == module
    if family == "generators":
        assert issubclass(found, Generator) and not getattr(found, "__abstractmethods__", None)
        assert entry.learns == (found.trainable is not Generator.trainable), "what the lists say of its training"


def test_the_families():
    assert registry.FAMILIES == ("generators", "filters", "metrics", "detectors", "exports")
    assert {"controlnet_inpaint", "crop_paste", "perlin"} <= set(registry.entries("generators"))
    assert "mvtec" in registry.entries("exports")


def test_every_file_of_a_family_has_its_name():
    import flawsmith

    for family in registry.FAMILIES:
        folder = Path(flawsmith.__file__).parent / family
        files = {p.stem for p in folder.glob("*.py")} - {"__init__"}
        known = {entry.target.partition(":")[0].rpartition(".")[2] for entry in registry.entries(family).values()}
        assert known <= files, family


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("controlnet_inpainting", "did you mean 'controlnet_inpaint'"),
        ("zzz", "known: anomaly_diffusion, component, controlnet_inpaint, crop_paste"),
    ],
)
def test_an_unknown_name(name: str, wanted: str):
    with pytest.raises(ConfigError, match=rf"generator '{name}' is unknown; {wanted}"):
        registry.get("generators", name)
    with pytest.raises(ConfigError, match=rf"^generator\.name: generator '{name}' is unknown; {wanted}"):
        registry.require("generators", name, "generator.name")


def test_an_unknown_family():
    with pytest.raises(ConfigError, match="generator: no such family of plug-ins; did you mean 'generators'"):
        registry.entries("generator")


def test_the_developers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_own_plugin.py").write_text("class Mine: Settings = dict\nclass Paste: Settings = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(
        "FLAWSMITH_PLUGINS",
        " generators.mine = my_own_plugin:Mine , exports.odd=my_own_plugin:Mine,"
        "generators.crop_paste=my_own_plugin:Paste,",
    )
    assert registry.entries("generators")["mine"].summary == "from FLAWSMITH_PLUGINS"
    assert registry.get("generators", "mine").__name__ == "Mine"
    assert registry.get("exports", "odd").__name__ == "Mine"
    assert registry.get("generators", "crop_paste").__name__ == "Paste", "the developer's stands before ours"
    assert "mine" not in registry.entries("filters")
    monkeypatch.delenv("FLAWSMITH_PLUGINS")
    assert "mine" not in registry.entries("generators")


@pytest.mark.parametrize("item", ["mine", "generators.mine", "generators.mine=module", "mine=module:Mine"])
def test_a_developers_slip(monkeypatch: pytest.MonkeyPatch, item: str):
    monkeypatch.setenv("FLAWSMITH_PLUGINS", item)
    with pytest.raises(ConfigError, match=r"FLAWSMITH_PLUGINS: '.*' should read family\.name=module:object"):
        registry.entries("generators")


def test_a_developers_wrong_family(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "export.mine=module:Mine")
    with pytest.raises(ConfigError, match=r"'export\.mine=module:Mine': no such family .* did you mean 'exports'"):
        registry.entries("generators")
    assert len(registry.misnamed(Config())) == 1, "one slip, one sentence"


@pytest.mark.parametrize(
    "target, wanted", [("no_such_module_here:X", "No module named"), ("json:Nothing", "has no attribute 'Nothing'")]
)
def test_a_plugin_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, target: str, wanted: str):
    monkeypatch.setenv("FLAWSMITH_PLUGINS", f"generators.mine={target}")
    with pytest.raises(ConfigError, match=rf"generator 'mine' \({target}\) cannot be loaded: .*{wanted}"):
        registry.get("generators", "mine")


@pytest.fixture
def looked_for_anew() -> Iterator[None]:
    """Installed packages are looked for once in a process: what is known before and after this test does not count."""
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()


def test_an_installed_packages_own(monkeypatch: pytest.MonkeyPatch, looked_for_anew: None):
    point = importlib.metadata.EntryPoint("theirs", "flawsmith.filters.seam:Seam", "flawsmith.filters")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "flawsmith.filters" else [])
    entry = registry.entries("filters")["theirs"]
    assert entry.target == "flawsmith.filters.seam:Seam" and entry.summary.startswith("from the package")
    assert registry.get("filters", "theirs").__name__ == "Seam"
    assert "theirs" not in registry.entries("generators")


def test_asking_for_names_imports_nothing_heavy():
    code = (
        "import sys; from flawsmith import registry, config, errors\n"
        "[registry.entries(f) for f in registry.FAMILIES]\n"
        "print([m for m in ('torch', 'diffusers', 'cv2', 'numpy', 'flawsmith.generators.perlin') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
