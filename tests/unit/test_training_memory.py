"""nn/memory: what spares memory changes nothing that is learned, and memory that runs out is a sentence."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save
from small_trainer import small_network, small_trainer
from torch import Tensor, nn

from flawsmith import registry
from flawsmith.config import load_config
from flawsmith.errors import RunError
from flawsmith.interfaces import Generator
from flawsmith.nn import backbone as backbone_module
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.memory import slices
from flawsmith.nn.memory.exhausted import memory_suffices, ran_out
from flawsmith.nn.memory.parking import at_work, parked
from flawsmith.nn.memory.portions import _rows, in_portions
from flawsmith.nn.memory.presets import PRESETS, Preset, preset_of, smaller, spare
from flawsmith.nn.trainer import Trainer
from flawsmith.nn.weights import load_tensors, save_tensors, tensor_hash
from flawsmith.run.folder import Run
from flawsmith.synthesis import train as training
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.learning import loss_in_parts
from flawsmith.testing import example_batch, example_condition
from flawsmith.testing.generators import example_crops

TRAINED = [
    name
    for name in sorted(registry.entries("generators"))
    if registry.get("generators", name).needs_backbone
    and registry.get("generators", name).trainable is not Generator.trainable
]


def shake(generator: Any) -> None:
    """Move every trained weight: gradients then reach all of them."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in generator.trainable().values():
            for parameter in module.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))


def gradients(generator: Any, views: Any, windows: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of one step and every gradient of it."""
    weights = {f"{k}.{n}": p for k, m in generator.trainable().items() for n, p in m.named_parameters()}
    for weight in weights.values():
        weight.grad = None
    given = loss_in_parts(generator, views, torch.Generator().manual_seed(1), windows)
    if isinstance(given, Tensor):
        given.mean().backward()
        return given.detach().mean(), {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    total = torch.zeros(())
    for part in given.parts:
        share = part.sum() / given.rows
        share.backward()
        total += share.detach()
    return total, {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_in_parts_and_computed_again_is_the_same_step(name: str, backbone: Any) -> None:
    """Loss and gradients, with the reference and the adapters of each row told again to blocks that are repeated."""
    plugin = registry.get("generators", name)
    generator = plugin(backbone, plugin.Settings(**({"bcm": "scaled"} if name == "dual_branch" else {})))
    generator.learn(example_crops(backbone.size))
    shake(generator)
    views = generator.encode(example_batch(backbone.size))
    loss, whole = gradients(generator, views, 0)
    networks = [generator.backbone.unet, *(n for m in generator.trainable().values() for n in m.modules())]
    spare(networks, Preset(recomputes=True))
    blocks = [m for n in networks for m in n.modules() if getattr(m, "gradient_checkpointing", False)]
    try:
        assert blocks, "no block is computed again"
        for windows in (0, 3):
            again, parts = gradients(generator, views, windows)
            torch.testing.assert_close(again, loss, rtol=1e-5, atol=1e-6)
            assert parts.keys() == whole.keys()
            most = max(float(value.abs().max()) for value in whole.values())
            for key, value in whole.items():
                # few_steps has a distance that is nearly an absolute value: its derivative magnifies rounding.
                torch.testing.assert_close(parts[key], value, rtol=1e-3, atol=1e-4 * most, msg=key)
    finally:
        for block in blocks:  # the backbone's UNet is other tests' as well
            block.gradient_checkpointing = False


def test_computing_again_keeps_less(make_backbone: Any) -> None:
    """What autograd keeps of a step, in bytes; only what is not a weight counts."""
    back = make_backbone()
    plugin = registry.get("generators", "cross_modal")
    generator = plugin(back, plugin.Settings())
    views = generator.encode(example_batch(back.size))

    def kept() -> int:
        seen: dict[int, int] = {}
        weights = {p.untyped_storage().data_ptr() for p in (*back.unet.parameters(), *generator.sga.parameters())}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = generator.loss(views, torch.Generator().manual_seed(1))
        del loss
        return sum(seen.values())

    before = kept()
    spare([generator.backbone.unet], PRESETS["8GB"])
    assert kept() < 0.6 * before


def trainer(network: nn.Module, state: Path | None = None, **changes: Any) -> Trainer:
    return small_trainer(network.to(memory_format=torch.channels_last), state, **{"steps": 8, **changes})


@pytest.mark.parametrize("host", [{"average_on_host": True}, {"optimiser_on_host": True}])
def test_the_optimiser_on_the_host_learns_the_same(host: dict[str, bool], tmp_path: Path) -> None:
    plain, other = small_network(), small_network()
    wanted, fit = trainer(plain), trainer(other, **host)
    list(wanted.run())
    list(fit.run())
    assert fit.losses == pytest.approx(wanted.losses, rel=1e-5)
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    # Killed after three steps and resumed: the same to the bit.
    walk = trainer(small_network(), tmp_path / "c", **host).run()
    for _ in range(3):
        next(walk)
    resumed = small_network(5)
    again = trainer(resumed, tmp_path / "c", **host)
    list(again.run())
    assert again.losses == fit.losses and tensor_hash(resumed.state_dict()) == tensor_hash(other.state_dict())


def test_a_checkpoint_of_one_place_goes_on_in_the_other(tmp_path: Path) -> None:
    walk = trainer(small_network(), tmp_path / "c").run()
    for _ in range(4):
        next(walk)
    moved, whole = small_network(5), small_network()
    list(trainer(moved, tmp_path / "c", optimiser_on_host=True).run())
    list(trainer(whole).run())
    for one, two in zip(moved.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_the_bytes_are_those_of_safetensors(tmp_path: Path) -> None:
    tensors = {
        "b/weight": torch.randn(3, 5),
        "a": torch.randn(7).bfloat16(),
        "count": torch.arange(4),
        "flag": torch.tensor([True, False, True]),
        "none": torch.zeros(0, 3),
        "h": torch.randn(3).half(),
        "one": torch.tensor(1.5),
        "d": torch.randn(2).double(),
        "byte": torch.arange(5, dtype=torch.uint8),
        "größe": torch.randn(2),
    }
    save_tensors(tmp_path / "x", tensors, {"who": "größe"})
    assert (tmp_path / "x").read_bytes() == save(tensors, metadata={"who": "größe"})


def peak_of(work: Any) -> float:
    """Return by how many bytes the memory of this process grew at its highest, while some work was done."""

    def status(key: str) -> float:
        return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]

    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's count of memory")
def test_saving_takes_little_more_than_the_weights(tmp_path: Path) -> None:
    """A checkpoint is four times the weights (two moments, the average); all at once, saving took ten times them."""
    torch.manual_seed(0)
    net = nn.ModuleList(nn.Linear(1024, 512, bias=False) for _ in range(12))  # 25 MB
    weights = sum(p.numel() * p.element_size() for p in net.parameters())

    def loss_of(step: int, rng: torch.Generator) -> Tensor:
        return sum(part.weight.square().sum() for part in net)[None]  # type: ignore[union-attr,misc]

    fit = Trainer({"net": net}, loss_of, steps=2, learning_rate=1e-3, average=0.9, save_every=9, state=tmp_path / "c")
    next(fit.run())
    assert peak_of(lambda: fit._save(1)) < 0.3 * weights  # beside the weights that are there anyway
    assert (tmp_path / "c").stat().st_size > 4 * weights
    assert load_tensors(tmp_path / "c")[1]["done"] == "1"


def test_pictures_are_encoded_and_decoded_a_few_at_a_time(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = example_batch(backbone.size).image
    latent = backbone.encode(image)
    picture = backbone.decode(latent)
    counts: list[int] = []
    honest = slices._given

    def counted(tensor: Tensor, vae: Any) -> Tensor:
        counts.append(len(tensor))
        return honest(tensor, vae)

    monkeypatch.setattr(slices, "_given", counted)
    monkeypatch.setattr(slices, "PIXELS_AT_ONCE", 3 * backbone.size**2)
    torch.testing.assert_close(backbone.encode(image), latent, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backbone.decode(latent), picture, rtol=1e-4, atol=1e-5)
    assert counts == [3, 1, 3, 1]
    monkeypatch.setattr(slices, "PIXELS_AT_ONCE", 1)  # larger pictures than that go one at a time
    assert backbone.encode(image).shape == latent.shape and counts[4:] == [1, 1, 1, 1]


def test_parked_networks_are_away_and_come_back() -> None:
    """On the meta device, which every machine has: what is parked is on the host, and `at_work` fetches it."""
    meta, net = torch.device("meta"), nn.Linear(2, 2, device="meta")
    moves: list[str] = []

    class Moved(nn.Linear):
        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            moves.append(fn(torch.empty(0, device="cpu")).device.type)
            return self

    with parked([Moved(2, 2)], meta):
        assert moves == ["cpu"]
    assert moves == ["cpu", "meta"]
    with at_work([net], meta):  # it is there already
        assert net.weight.device.type == "meta"
    moves.clear()
    with at_work([Moved(2, 2)], meta):
        assert moves == ["meta"]
    assert moves == ["meta", "cpu"]
    with parked([Moved(2, 2)], torch.device("cpu")):
        assert moves == ["meta", "cpu"]


def test_auto_is_nothing_where_memory_is_not_short(backbone: Any) -> None:
    assert preset_of("auto", backbone) == preset_of("auto", None) == Preset()
    assert preset_of("8GB", backbone) == PRESETS["8GB"]
    assert [smaller(preset) for preset in (Preset(), *PRESETS.values())] == ["24GB", "12GB", "8GB", ""]


@pytest.mark.parametrize(
    ("mib", "name"), [(81559, ""), (40960, ""), (24564, "24GB"), (16380, "12GB"), (12288, "12GB"), (10_800, "8GB")]
)
def test_auto_takes_the_preset_of_the_card(mib: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=mib * 2**20))
    large, small = (nn.Linear(width, 20_000, device="meta") for width in (20_000, 1000))
    card = torch.device("cuda")
    assert preset_of("auto", SimpleNamespace(device=card, unet=large)) == (PRESETS[name] if name else Preset())
    assert preset_of("auto", SimpleNamespace(device=card, unet=small)) == Preset()
    assert preset_of("auto", SimpleNamespace(device=torch.device("cpu"), unet=large)) == Preset()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_a_sentence(error: Exception) -> None:
    assert ran_out(error) and not ran_out(RuntimeError("shapes do not fit"))
    with pytest.raises(RunError, match='^here: the memory ran out; set train.memory = "8GB"$'):
        with memory_suffices("here", 'set train.memory = "8GB"'):
            raise error
    with pytest.raises(RuntimeError, match="another"), memory_suffices("here", "less"):
        raise RuntimeError("another")


# ---- whole runs ---------------------------------------------------------------------------------


def prepared(small_config: dict[str, Any], folder: Path, **told: Any) -> Run:
    return Run.create(folder, load_config(None, {**small_config, "data.products": ["magnet"], **told}))


def weights_of(run: Run) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in run.path("weights").rglob("control.safetensors")}


def test_a_killed_run_of_two_models_goes_on_with_the_second_and_leaves_no_state(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"train.scope": "defect", "train.memory": "8GB", "train.steps": 1, "train.views": 1, "data.shots": 1}
    run = prepared(small_config, tmp_path / "killed", **told)
    begun: list[str] = []
    honest = training.fit

    def killed(run: Run, generator: Any, job: Any, *more: Any) -> list[float]:
        begun.append(job.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return honest(run, generator, job, *more)

    monkeypatch.setattr(training, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(run)
    training.train(run)
    assert begun == ["magnet/chip", "magnet/crack", "magnet/crack"]
    monkeypatch.setattr(training, "fit", honest)
    assert not list(run.path("state").rglob("*.safetensors"))
    whole = prepared(small_config, tmp_path / "whole", **told)
    training.train(whole)
    assert weights_of(run) == weights_of(whole) and len(weights_of(run)) == 2


def test_what_is_done_needs_no_backbone(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(small_config, tmp_path / "run", **{"train.steps": 1, "generate.count": 1})
    training.train(run)
    generate(run)
    log = run.path("log.jsonl").read_text()
    monkeypatch.setattr(Backbone, "load", lambda *_, **__: pytest.fail("the backbone was loaded"))
    training.train(run)
    generate(run)
    assert run.path("log.jsonl").read_text() == log
    monkeypatch.undo()
    # Something is to be done: it is loaded, and what is known of it is not hashed again.
    run.path("samples", "000000.png").unlink()
    backbone_module._FINGERPRINTS.clear()
    monkeypatch.setattr(backbone_module, "tensor_hash", lambda _: pytest.fail("its weights were hashed"))
    generate(run)
    monkeypatch.undo()
    log = run.path("log.jsonl").read_text()
    other = Run.open(run.folder)
    path = Path(run.config.backbone.source) / "unet"
    weights = next(path.glob("*.safetensors"))
    os.utime(weights, ns=(1, 1))  # touched: its content is looked at again, and is the same
    training.train(other)
    assert run.path("log.jsonl").read_text() == log


def test_memory_that_runs_out_in_training_names_the_next_preset(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any, **__: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    plugin = registry.get("generators", "controlnet_inpaint")
    monkeypatch.setattr(plugin, "loss_of", exhausted)
    for memory, remedy in (("auto", 'set train.memory = "24GB"'), ("12GB", '"8GB"'), ("8GB", "a larger card")):
        run = prepared(small_config, tmp_path / memory, **{"train.memory": memory})
        with pytest.raises(RunError, match="controlnet_inpaint .magnet.: training: the memory ran out") as told:
            training.train(run)
        assert remedy in str(told.value) and "\n" not in str(told.value)


def test_generation_halves_its_batch_where_memory_is_short(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is made, the log says so, and a run that goes on after a kill makes the same bytes."""
    plugin = registry.get("generators", "controlnet_inpaint")
    honest, most, left = plugin.sample, 1, [99]

    def sample(self: Any, asked: Any, seeds: Any, **told: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        if len(asked) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return honest(self, asked, seeds, **told)

    monkeypatch.setattr(plugin, "sample", sample)
    told = {"train.steps": 0, "generate.count": 4, "generate.batch": 2, "generate.attempts": 1, "generate.steps": 1}
    told |= {"generate.controls": 0.0, "generate.min_painted": 0.0, "data.defects": ["chip"], "data.shots": 1}
    whole, killed = (prepared(small_config, tmp_path / name, **told) for name in ("whole", "killed"))
    training.train(whole)
    generate(whole)
    logged = [json.loads(line).get("what", "") for line in whole.path("log.jsonl").read_text().splitlines()]
    assert [line for line in logged if "ran out" in line] == ["the memory ran out: one window at once from batch 0 on"]
    assert len(whole.samples()) == 4
    training.train(killed)
    left[0] = (99 - left[0]) // 2 + 1  # within the second batch
    with pytest.raises(KeyboardInterrupt):
        generate(killed)
    left[0] = 99
    generate(killed)
    pictures = sorted(path.name for path in whole.path("samples").iterdir())
    assert pictures == sorted(path.name for path in killed.path("samples").iterdir()) and pictures
    for name in pictures:
        assert whole.path("samples", name).read_bytes() == killed.path("samples", name).read_bytes()
    most = 0
    whole.path("samples", "000000.png").unlink()
    with pytest.raises(RunError, match="the memory ran out over a single window; take a smaller windows.size"):
        generate(whole)


THREE, REST = slice(0, 3), slice(3, 6)


def test_a_portion_keeps_rows_and_seeds(backbone: Any) -> None:
    plugin = registry.get("generators", "dual_branch")
    generator, asked = plugin(backbone, plugin.Settings()), example_condition(backbone.size, 4)
    made = in_portions(generator, asked, range(4), 3, 2, 2.0)
    first, last = (in_portions(generator, _rows(asked, rows), range(4)[rows], 0, 2, 2.0) for rows in (THREE, REST))
    assert torch.equal(made.image, torch.cat([first.image, last.image]))
    assert made.base is not None and len(made.base) == len(made.mask) == 4
    whole = in_portions(generator, asked, range(4), 0, 2, 2.0)
    torch.testing.assert_close(made.image, whole.image, rtol=0, atol=1e-3)
