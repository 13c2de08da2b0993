"""What a run will cost, before it starts: time, memory and disk, from a small table of measured rates.

An estimate is worth having when it tells minutes from hours; every line states what it assumes.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from flawsmith import registry
from flawsmith.config import Config
from flawsmith.data.photographs import KEPT
from flawsmith.errors import Answer
from flawsmith.nn.loading.facts import BackboneFacts
from flawsmith.preflight.rates import PLAIN, SMALL, spared
from flawsmith.preflight.stage_times import (
    JUDGE_SECONDS,
    SETUP_SECONDS,
    WITHOUT_PIXELS,
    StageSeconds,
    looking,
    making,
    writing,
)
from flawsmith.processes import busy, fitting
from flawsmith.run.progress import span
from flawsmith.synthesis.counts import wanted

PIXELS_MEMORY = 0.36
"""GB of a process that has loaded everything and no network: torch and SciPy, and the windows."""
PROOF_MEMORY = 0.9
"""GB that a proof adds to that: the default detector at 384 px, 93 photographs, on a processor."""
_SOLVED = 930
"""Bytes per pixel of the largest damage while it is blended in (`data.poisson`)."""
_CORES = 2
"""Rates of processors hold for so many."""
CPUINFO = Path("/proc/cpuinfo")
PNG_SHARE = 0.6  # photographs of parts as PNG over their raw bytes; magnetic-tile 0.5, mvtec screw 0.4 to 0.6


def estimate(
    config: Config,
    have: Mapping[tuple[str, str], int],
    *,
    windows: float,
    picture_bytes: float,
    largest: tuple[float, float],
    damaged: float,
    photographs: int,
    backbone: BackboneFacts | None = None,
    transferred: Iterable[tuple[str, str]] = (),
    tiles: float = 1.0,
) -> tuple[dict[str, str], dict[str, tuple[Answer, ...]]]:
    """Return {what: how much} for a reader, and warnings with the settings that answer them.

    Args:
        config: The run's configuration.
        have: Real pictures of each (product, defect type) that is made; 0 = of one that no shot shows.
        windows: Windows that a damage takes, on average.
        picture_bytes: Raw bytes of a typical photograph.
        largest: Raw bytes and pixels of the largest photograph.
        damaged: Pixels of the largest damage.
        photographs: How many are learned from.
        backbone: What the backbone is; None = unknown.
        transferred: Each (product, defect type) that is painted and was never seen on the product.
        tiles: Tiles into which the proof cuts a photograph, in the mean (`prove.tile`); 1 = it sees them whole.
    """
    size = config.windows.size or (backbone.size if backbone else 512)
    machine = _machine(config.backbone.device)
    products, defects = len({product for product, _ in have}), len(have)
    models = {"product": products, "defect": defects, "all": 1}[config.train.scope]
    samples = sum(wanted(config, {**dict.fromkeys(transferred, 0), **have}).values())
    proven = {product for (product, _), number in have.items() if number}  # both compare with real shots
    screened = config.screen.enabled and bool(proven)
    samples = math.ceil(samples * config.screen.times) if screened else samples
    known = registry.entries("generators")
    # None is known by nobody: `check` has said so.
    repainted = any(known[name].controls for name in config.generator.names if name in known)
    painted = samples * (1 + config.generate.controls * repainted)
    real = sum(have.values())
    time_of = partial(
        making,
        config,
        backbone=backbone,
        machine=machine,
        size=size,
        models=models,
        painted=painted,
        windows=windows,
        picture_bytes=picture_bytes,
    )
    train, draw, rate = time_of(config.generator.names)
    names = " and ".join(config.generator.names)
    card, spares = _card() if machine == "GPU" else None, list[float]()
    controls = round(painted - samples)
    counted = f"{samples} samples and {controls} negative controls" if controls else _count(samples, "sample")
    if rate is None:
        network, saved = PIXELS_MEMORY, 0.0
        training, generating = "none", f"{_time(draw)} ({counted}; {names} works on pixels)"
        by = "no backbone"
    else:
        # A small network takes about as much per window when it paints, with guidance and the batch's pictures.
        at_once = max(config.train.batch, config.generate.batch if rate.parameters <= SMALL else 0)
        network = max(PIXELS_MEMORY, rate.fixed + at_once * rate.window)
        saved = models * rate.weights * 1e6
        if machine == "GPU":
            spares = [
                gigabytes
                for name in config.generator.names
                if (gigabytes := spared(name, backbone, config.train.memory, card or 0.0, size)) is not None
            ]
            network = min(network, max(spares, default=network))
        training = f"{_time(train)} ({_count(models, 'model')}, {config.train.steps} steps of {config.train.batch})"
        steps, guidance = config.generate.steps, f"{config.generate.guidance:g}"
        generating = f"{_time(draw)} ({counted}; {steps} steps, guidance {guidance})"
        by = f"{config.backbone.source} backbone" + (f" ({backbone.sentence()})" if backbone else "")
    trainings = len(proven) * config.prove.seeds * _arms(config) if config.prove.enabled else 0
    side = config.prove.tile or config.prove.size or 384
    looked_at = WITHOUT_PIXELS + (1 - WITHOUT_PIXELS) * (side / 384) ** 2 * tiles
    proving = PIXELS_MEMORY + PROOF_MEMORY * (side / 384) ** 2 * tiles
    at_once = _judges_at_once(config, machine, proving * 1e9)
    rivals = [time_of([name])[:2] for name in config.rivals] if trainings else []
    screening, measuring = looking(samples, real, screened=screened, measured=config.measure.enabled and bool(proven))
    stages = StageSeconds(
        setup=SETUP_SECONDS,
        training=train,
        generating=draw,
        screening=screening,
        measuring=measuring,
        rivals=sum(map(sum, rivals)),
        proof=trainings * JUDGE_SECONDS[machine] * config.prove.budget * looked_at / at_once,
        writing=writing(samples, photographs, len(config.export.formats)),
    )
    cut = f", {tiles:.1f} tiles of {side} px per photograph" if config.prove.tile else ""
    judges = ", ".join(config.prove.detectors)
    memory = network + held(*largest, damaged, photographs) / 1e9
    unproven = "left out: no real defect to test on" if config.prove.enabled else "left out"
    disk = (samples + painted) * picture_bytes * PNG_SHARE + saved
    disk += max(0, len(config.export.formats) - 1) * samples * picture_bytes * PNG_SHARE
    free = shutil.disk_usage(Path.cwd()).free
    again = config.screen.rounds if screened else 0
    table = {
        "samples": f"{samples} ({windows:.1f} windows each)"
        + (f"; what the gate rejects is made again in up to {again} rounds" if again else ""),
        "training": training,
        "generating": generating,
        **({"screening": _time(stages.screening)} if stages.screening else {}),
        **({"measuring": _time(stages.measuring)} if stages.measuring else {}),
        **({"samples to compare with": f"{_time(stages.rivals)} (of {', '.join(config.rivals)})"} if rivals else {}),
        "proof": f"{_time(stages.proof)} ({_count(trainings, 'training')} of {judges}{cut})" if trainings else unproven,
        "in all": _in_all(stages),
        "memory": f"about {memory:.1f} GB",
        **({"memory of the proof": _proof_memory(proving, at_once)} if trainings and machine != "GPU" else {}),
        "disk": f"about {_bytes(disk)}; {_bytes(free)} are free here",
        "assumes": f"{size} px windows, {by}; {_assumed(machine, at_once if trainings else _CORES)}",
    }
    warnings: dict[str, tuple[Answer, ...]] = {}
    if disk > free:
        warnings[f"the run needs about {_bytes(disk)} and {_bytes(free)} are free here; give --out another disk"] = ()
    if train + draw > 24 * 3600:
        warnings[f"the run takes {_time(train + draw)}; use a GPU, fewer steps or fewer samples"] = ()
    if rate and card and card < network:
        smaller = {"24GB": "12GB", "12GB": "8GB"}.get(config.train.memory, "")
        fitting = int((card - rate.fixed) / rate.window)
        answers: tuple[Answer, ...] = ()
        if smaller:
            answers = (Answer("train.memory", smaller),)
        elif not spares and fitting >= 1:
            answers = (Answer("train.batch", fitting),)
        advice = f"set {answers[0]}" if answers else "use a larger one, or another generator"
        warnings[f"training takes about {network:.0f} GB and the GPU has {card:.0f}; {advice}"] = answers
    return table, warnings


def held(native: float, pixels: float, damaged: float, photographs: int) -> float:
    """Return the bytes of pictures that painting holds at once, at any batch.

    Photographs with a mask, of damage or of the part, as many as are kept; and either one sample while it is written,
    in the file's order of colours and coded, with its mask, or a damage while it is blended in. Suite
    `picture_memory.py` measures it.
    """
    kept = max(min(KEPT, photographs * (native + pixels)), native + pixels)
    return kept + max(2.6 * native + 2 * pixels, _SOLVED * damaged)


def _judges_at_once(config: Config, machine: str, each: float) -> int:
    """Return how many trainings of a proof run at the same time, each with so many bytes; see `evaluation.at_once`."""
    if config.prove.workers != "auto":
        return config.prove.workers
    return 1 if machine == "GPU" else fitting(each)


def _assumed(machine: str, at_once: int) -> str:
    """Return on what the times hold: rates are those of two cores, a proof's of a core for each training."""
    if machine == "GPU":
        return "one GPU"
    cores = f"two cores of a {machine}"
    return cores if at_once == _CORES else f"{cores} (in the proof {at_once})"


def _proof_memory(each: float, at_once: int) -> str:
    """Return the memory of trainings that run at the same time, each with so many GB."""
    gigabytes = f"{each * at_once:.1f}"
    return f"about {gigabytes} GB" if at_once == 1 else f"about {gigabytes} GB, {at_once} trainings at the same time"


def _arms(config: Config) -> int:
    part = config.prove
    others = config.rivals
    mixed = bool(part.mix and others)
    return 4 + len(others) + bool(config.generate.controls) + mixed + len(part.curve)


def _machine(device: str) -> str:
    """Guess without importing torch: a driver's tool on the path means a GPU."""
    if device not in ("auto", "cpu") or (device == "auto" and shutil.which("nvidia-smi")):
        return "GPU"
    try:
        flags = set(CPUINFO.read_text(encoding="utf-8").split())
    except OSError:  # not Linux: the slower of the two, until somebody measures
        return PLAIN
    # What `nn.device.gains_from_bfloat16` asks torch, which is not loaded here.
    return "processor" if flags & {"amx_tile", "avx512_bf16"} else PLAIN


def _card() -> float | None:
    """Return the GB of the largest GPU by its driver's tool; None = unknown."""
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        sizes = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        return max(float(line) for line in sizes.split()) * 2**20 / 1e9
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _in_all(stages: StageSeconds) -> str:
    """Return the time of the whole run, and what it comes to with what else runs here now."""
    times = busy()
    total, slower = _time(stages.total()), _time(stages.total() * times)
    return f"{total}; {slower} with what else runs here now" if times > 1 else total


def _time(seconds: float) -> str:
    digits, word = span(seconds)
    return f"about {digits} {word}"


def _bytes(count: float) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
