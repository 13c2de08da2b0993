"""How many seconds each stage of a run takes, from measured rates: what `cost` puts into words and adds up.

Seconds are those of two cores with nothing else at work; where something is, `processes.busy` says how
many times as many they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from flawsmith import registry
from flawsmith.config import Config
from flawsmith.nn.loading.facts import BackboneFacts
from flawsmith.preflight.rates import PLAIN, Rate, rate_of

JUDGE_SECONDS = {"processor": 60.0, PLAIN: 95.0, "GPU": 10.0}
"""A training of the default detector at 384 px with its share of the features, on one core; the GPU's is a guess."""
WITHOUT_PIXELS = 1 / 3
"""The share of it that does not grow with the picture: heads learn from as many places."""
PIXELS_SECONDS = {"crop_paste": 0.06, "cutpaste": 0.1, "nsa": 0.25, "perlin": 0.3, "rendered": 0.08}
"""A sample at 256 px of a generator that works on pixels, with its files written: CPU seconds of 72 to 108."""
_OTHER_PIXELS = 0.4
"""Likewise of `patch_synthesis`, and of those that were not timed."""
_PER_BYTE = 1e-7
"""More for each raw byte of a photograph that is read, painted on and coded: `crop_paste` took 0.10 CPU seconds a
sample at 0.15 MB, 0.63 at 9 MB (3 MP in colour) and 3.7 at 36 MB (12 MP), on one thread, of noise that hardly packs."""
SETUP_SECONDS = 20.0
"""Before anything is made: everything is loaded, photographs are decoded and hashed, processes start."""
_SCREENED = 0.075
"""A sample that the gate looks at, at 256 px (benchmarks/results/screen.json)."""
_MEASURED = 0.06
"""A sample, or a shot, that `measure` describes and counts: 37 and 48 s for 550 (benchmarks/results/proof.json)."""
_WRITTEN = 0.01
"""A picture of an export: 4 s for 500 samples and the photographs; as much again for what the report shows of it."""


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Seconds of each part of a run; 0 = it is left out."""

    setup: float
    training: float
    generating: float
    """Samples and negative controls."""
    screening: float
    """One look at each sample; what is rejected and made again comes on top."""
    measuring: float
    rivals: float
    """What the generators learn and make that the proof compares with."""
    proof: float
    """Trainings of detectors."""
    writing: float
    """Exports and the report."""

    def total(self) -> float:
        """Return the seconds of the whole run."""
        return sum(getattr(self, one.name) for one in fields(self))


def making(
    config: Config,
    names: Sequence[str],
    *,
    backbone: BackboneFacts | None,
    machine: str,
    size: int,
    models: int,
    painted: float,
    windows: float,
    picture_bytes: float,
) -> tuple[float, float, Rate | None]:
    """Return the seconds to train generators and to make a plan's samples and controls.

    Args:
        config: The run's configuration.
        names: The generators, which share the plan.
        backbone: What the backbone is; None = unknown.
        machine: As for `rates.rate_of`.
        size: Side of the window in pixels.
        models: How many each of them trains.
        painted: Samples and controls.
        windows: Windows that a damage takes, on average.
        picture_bytes: Raw bytes of a typical photograph.

    Returns:
        Training, painting, and the rate of the slowest network; None = they all work on pixels.
    """
    known = registry.entries("generators")
    networks = [name for name in names if not ((plugin := known.get(name)) and plugin.pixels)]
    pictures = painted * picture_bytes * _PER_BYTE
    if not networks:
        return 0.0, pictures + painted * max(PIXELS_SECONDS.get(name, _OTHER_PIXELS) for name in names), None
    rate = max((rate_of(name, backbone, machine, size) for name in networks), key=lambda one: one.train)
    passes = config.generate.steps * (2 if config.generate.guidance > 1 else 1)
    train = models * config.train.steps * config.train.batch * rate.train
    return train, pictures + painted * windows * passes * rate.draw, rate


def looking(samples: float, real: int, *, screened: bool, measured: bool) -> tuple[float, float]:
    """Return the seconds to screen and to measure samples beside so many real pictures."""
    return (samples + real) * _SCREENED * screened, (samples + real) * _MEASURED * measured


def writing(samples: float, photographs: int, formats: int) -> float:
    """Return the seconds to write exports in so many formats, and the report."""
    return (samples + photographs) * _WRITTEN * (1 + formats)
