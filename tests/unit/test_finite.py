"""synthesis/finite.py: what is no number is refused, by every generator's name, and nothing of it stays on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import flawsmith as fs
from flawsmith import registry
from flawsmith.config import load_config
from flawsmith.errors import RunError
from flawsmith.generators.crop_paste import CropPaste
from flawsmith.nn.trainer import Trainer
from flawsmith.nn.weights import load_tensors, save_tensors
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.finite import require_finite, require_finite_weights
from flawsmith.testing.generators import _new, example_condition
from flawsmith.types import Condition, Generated

NAN, HUGE = float("nan"), 1e38
SPOILT: dict[str, Callable[[Generated], Generated]] = {
    "NaN": lambda made: replace(made, image=made.image.index_fill(3, torch.tensor([0]), NAN)),
    "infinite": lambda made: replace(made, image=made.image.index_fill(3, torch.tensor([0]), float("inf"))),
    "1e+38": lambda made: replace(made, image=made.image.index_fill(3, torch.tensor([0]), -HUGE)),
    "out of [-1, 1]": lambda made: replace(made, image=(made.image + 1) * 127.5),
    "finite": lambda made: replace(made, base=made.image.index_fill(3, torch.tensor([0]), NAN)),
    "mask": lambda made: replace(made, mask=made.mask * 255),
}


class Spoils(CropPaste):
    """Paints as crop_paste does, and then spoils the third sample it is asked for."""

    how: Callable[[Generated], Generated]
    asked = 0

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        made = super().sample(asked, seeds, steps=steps, guidance=guidance)
        Spoils.asked += 1
        return Spoils.how(made) if Spoils.asked >= 3 else made


@pytest.fixture
def spoils(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAWSMITH_PLUGINS", f"generators.spoils={__name__}:Spoils")


def run_of(name: str, factory_root: Path, folder: Path, **more: Any) -> Run:
    overrides = {"data.root": str(factory_root), "data.products": ["magnet"], "data.shots": 2, "generator.name": name}
    overrides |= {"generate.count": 2, "generate.batch": 2, "generate.attempts": 1, "prove.enabled": False}
    return Run.create(folder / "run", load_config(None, overrides | more))


@pytest.mark.parametrize("words", SPOILT)
def test_a_result_that_is_no_picture_is_refused_and_leaves_nothing(
    words: str, spoils: None, factory_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spoils, "how", staticmethod(SPOILT[words]), raising=False)
    monkeypatch.setattr(Spoils, "asked", 0)
    run = run_of("spoils", factory_root, tmp_path)
    fs.train(run)
    with pytest.raises(RunError, match=r"^spoils: sample 2, window 1: painted .*this generator is at fault$") as error:
        fs.generate(run)
    assert words in str(error.value)
    rows = run.samples()
    assert [row.index for row in rows] == [0, 1] and not run.stage_hash("generate")  # the whole batch before stays
    pictures = {path.name for path in run.path("samples").iterdir()}
    assert pictures == {Path(name).name for row in rows for name in (row.image, row.mask)}
    monkeypatch.setattr(Spoils, "how", staticmethod(lambda made: made))
    fs.generate(run)  # put right, it goes on
    assert len(run.samples()) == 4 and run.stage_hash("generate")


LEARNING = [
    name
    for name in sorted(registry.entries("generators"))
    if registry.get("generators", name).needs_backbone and registry.is_ours("generators", name)
]


@pytest.mark.parametrize("value", [NAN, HUGE])
@pytest.mark.parametrize("name", LEARNING)
def test_damaged_weights_of_every_network_are_noticed(name: str, value: float, make_backbone: Any) -> None:
    """Whatever a network makes of NaN or of overflowing weights: it is no sample."""
    backbone = make_backbone()
    plugin = registry.get("generators", name)
    generator = _new(plugin, backbone)
    networks = [backbone.unet, *generator.trainable().values()]
    with torch.no_grad():
        for parameter in (parameter for network in networks for parameter in network.parameters()):
            parameter.fill_(value)
    asked = example_condition(backbone.size, 1)
    lines = [PlanLine(0, "sample", 0, "tile", name, "tile", "crack", 3, "good/0.png", "crack/0.png", "shots")]
    generated = generator.sample(asked, [3], steps=2, guidance=2.0)
    with pytest.raises(RunError, match=rf"^{name}: sample 0, window 1: .* train again"):
        require_finite(generator, generated, lines, 0)


def test_an_overflow_of_the_decoder_is_not_clamped_to_white(make_backbone: Any) -> None:
    backbone = make_backbone()
    latent = backbone.encode(torch.zeros(2, 3, 64, 64))
    before = backbone.decode(latent)
    assert torch.isfinite(before).all() and float(before.abs().max()) <= 1
    latent[1] = HUGE
    after = backbone.decode(latent)
    assert torch.equal(after[0], before[0]) and torch.isnan(after[1]).all()


def test_a_gradient_that_is_no_number_stops_before_it_is_saved(tmp_path: Path) -> None:
    """The loss is finite and its gradient is not: sqrt has none at 0."""
    net = torch.nn.Linear(2, 1)

    def loss_of(step: int, rng: torch.Generator) -> torch.Tensor:
        square = net(torch.randn(3, 2, generator=rng)).square().flatten()
        return (square * 0).sqrt() if step == 2 else square

    trainer = Trainer({"net": net}, loss_of, steps=4, learning_rate=1e-3, state=tmp_path / "c", save_every=1, name="x")
    with pytest.raises(RunError, match=r"^x diverged at step 2 \(gradient nan\); lower train\.learning_rate$"):
        list(trainer.run())
    assert load_tensors(tmp_path / "c")[1]["done"] == "2"
    assert all(torch.isfinite(value).all() for value in net.parameters())
    tensors, notes = load_tensors(tmp_path / "c")
    save_tensors(tmp_path / "c", tensors | {"weight/net.bias": torch.tensor([NAN])}, notes)
    again = Trainer({"net": torch.nn.Linear(2, 1)}, loss_of, steps=4, learning_rate=1e-3, state=tmp_path / "c")
    with pytest.raises(RunError, match=r"does not fit this training \(weight/net\.bias holds .*delete it"):
        list(again.run())


def test_weights_that_are_no_numbers_are_not_saved(make_backbone: Any) -> None:
    plugin = registry.get("generators", "controlnet_inpaint")
    generator = plugin(make_backbone(), plugin.Settings())
    require_finite_weights(generator, "controlnet_inpaint (tile)")
    with torch.no_grad():
        next(iter(next(iter(generator.trainable().values())).parameters())).fill_(NAN)
    with pytest.raises(RunError, match=r"^controlnet_inpaint \(tile\): training left .* no numbers in \w+"):
        require_finite_weights(generator, "controlnet_inpaint (tile)")
