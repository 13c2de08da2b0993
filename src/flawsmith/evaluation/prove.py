"""Do the samples help? Train detectors with and without them, and let test pictures that nobody has seen decide.

Protocol "clean": every arm and seed is trained to its end before it looks at the test set, once. Protocol "field": the
papers' way; detectors are tested after every epoch too, and best-on-test stands beside last, both labelled. A product
is proven at a time. Each trained arm is kept in state/prove/, so a killed proof goes on.
"""

from __future__ import annotations

from pathlib import Path

from flawsmith import registry
from flawsmith.config import Config, validate
from flawsmith.errors import DataError, RunError
from flawsmith.evaluation.arms import Synthesize, rival_run
from flawsmith.evaluation.at_once import train_all
from flawsmith.evaluation.false_discovery import correct
from flawsmith.evaluation.trainings import REFERENCE, Trainings, proof_extractor
from flawsmith.files import digest, file_digest, write_json
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.stage import Inputs, Spread, stage
from flawsmith.run.unchanged import require_as_learned, require_as_made

_READ_AFTERWARDS = {"prove.false_alarm_rate", "prove.resamples", "prove.confidence"}
"""Settings that are read when all detectors have answered: another value trains none of them again."""


def prove(run: Run, synthesize: Synthesize, data: Dataset | None = None, spread: Spread | None = None) -> Path:
    """Run the stage; does nothing when it is done already with the same input; returns the path of proof.json.

    Args:
        run: The run.
        synthesize: Trains and generates the runs of other generators (`Config.rivals`).
        data: Its photographs, when they are open already.
        spread: Has each arm and seed trained on whichever machine is free; None = on this one, several at the
            same time where cores and memory allow.

    Raises:
        RunError: no samples were generated yet, or they or their photographs were changed since.
        DataError: the run has no shots or no test pictures to prove anything on, or one of these is learned from.
    """
    config, path = run.config, run.path("proof.json")
    for name in config.prove.detectors:
        registry.require("detectors", name, "prove.detectors")
    registry.known_rivals(config)
    made = run.samples_hash()
    if not made:
        raise RunError(f"{run.folder}: no samples are made yet; run `flawsmith generate {run.folder}` first")
    data = data or open_dataset(run)
    if not data.split.shots:
        raise DataError(f"{run.folder}: a proof compares with real shots, and this run learns from none; give it some")
    require_as_learned(run, data)
    require_as_made(run, [*run.kept(), *run.controls()])
    split, extractor = data.split, proof_extractor(config)
    tests = data.content((*split.test_defects, *split.test_normals))
    files = {"files": read} if (read := _files_read(config)) else {}
    inputs = Inputs.of(config, "prove", samples=made, tests=tests, extractor=extractor.fingerprint, **files)
    with stage(run, "prove", inputs, outputs=[path]) as work:
        if work.done:
            return path
        rivals = {name: rival_run(run, name, data, synthesize) for name in config.rivals}
        stamp = _learned_from(inputs)[:12]
        trainer = Trainings(run, rivals, extractor, stamp)
        names = sorted({example.product for example in split.shots})
        splits = {name: split.of(name) for name in names}
        trained = train_all(trainer, run, rivals, splits, stamp, spread)
        products = {name: trainer.prove(name, part) for name, part in splits.items()}
        correct(products, 1 - config.prove.confidence)
        tree = {
            "protocol": config.prove.protocol,
            "detectors": config.prove.detectors,
            "reference": REFERENCE,
            "reduced": trainer.reduced(),
            "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
            "seeds": config.prove.seeds,
            "resamples": config.prove.resamples,
            "confidence": config.prove.confidence,
            "generator": config.generator.label,
            "products": products,
        }
        write_json(path, tree)
        trainer.forget()
        work.what = f"{trained} trainings"
    return path


def _files_read(config: Config) -> dict[str, str]:
    """Return the digest of each file that settings of detectors have them read, by the detector's name and a number."""
    settings = {
        name: validate(
            registry.get("detectors", name).Settings,
            config.prove.settings.get(name, {}),
            where=f"prove.settings.{name}",
        )
        for name in config.prove.detectors
    }
    return {
        f"{name} {number}": file_digest(path)
        for name, one in settings.items()
        for number, path in enumerate(one.reads())
    }


def _learned_from(inputs: Inputs) -> str:
    """Identify what detectors learn from; arms of releases without calibration normals have other names."""
    settings = {name: value for name, value in inputs.settings.items() if name not in _READ_AFTERWARDS}
    return digest(settings, dict(inputs.content), "calibration normals are kept away")
