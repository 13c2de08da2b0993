"""Which generator, masks and number of samples serve each defect type? Decided inside the shots, by folds.

    choice = flawsmith.choose(load_config("tile.toml"), "choices/tile")
    flawsmith.run_all(Run.create("runs/tile", choice.config))

For each fold everything is made and learned anew without its shots and normal parts, and the detector is then asked
about them. The run's test pictures are never looked at: they are refused as pictures to learn from, and no fold holds
them. First every candidate makes MOST samples per shot, and each type takes the one that helps it most beyond its
standard error, or none. Then the mixture of what was taken is tried with fewer samples, and without negative controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flawsmith import registry
from flawsmith.choice.candidates import MOST, Candidate, Samples, candidates
from flawsmith.choice.folds import folds_of
from flawsmith.choice.judge import Judge
from flawsmith.choice.records import Choice, DefectChoice, Figures, Trial, mean_figures
from flawsmith.choice.words import WORDS, write_choice
from flawsmith.config import Config, GeneratorConfig, affecting
from flawsmith.data.fingerprints import content_hash
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.evaluation.arms import REAL, Made
from flawsmith.evaluation.trainings import device_of
from flawsmith.files import digest, read_json
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.paths import confined
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.types import Advance

FEWER = (3, 1)
"""Samples per shot that are tried with the mixture, beside MOST."""
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Mixture:
    """What each defect type takes; a type that is left out takes nothing."""

    of: Mapping[str, Candidate]
    per_shot: int = MOST
    controls: bool = True

    @property
    def name(self) -> str:
        """What it is, in full; answers are kept by it."""
        parts = [f"{defect}: {candidate.name}" for defect, candidate in sorted(self.of.items())]
        return f"{self.per_shot} per shot{'' if self.controls else ', no controls'}; {'; '.join(parts)}"

    def samples(self, judge: Judge) -> Samples:
        """Return its samples in one fold."""
        samples: list[Made] = []
        controls: list[Made] = []
        for defect in sorted(self.of.keys() & judge.shots.keys()):
            made = judge.made(self.of[defect]).of(defect, self.per_shot * judge.shots[defect])
            samples += made.samples
            controls += made.controls if self.controls else ()
        return Samples(tuple(samples), tuple(controls))


def choose(config: Config, folder: str | Path, *, folds: int = FOLDS, also: Sequence[str] = ()) -> Choice:
    """Choose, and write choice.json, choice.md and chosen.toml into a folder; goes on where it was stopped.

    Args:
        config: What will be run; `generator`, `generate.masks`, `generate.count` and `generate.controls` are chosen.
        folder: Where the choice is written and worked out.
        folds: Into how many folds the shots are dealt.
        also: Generators to try beside the usual ones; those that train take minutes to hours in each fold.

    Raises:
        ConfigError: fewer than two folds, or an unknown generator or detector.
        DataError: no defect type has shots of two pieces, so that one could judge the other.
    """
    if folds < 2:
        raise ConfigError(f"folds: {folds} leaves nothing to judge by; take 2 or more")
    tried = candidates(also)
    for name in config.prove.detectors:
        registry.require("detectors", name, "prove.detectors")
    # The folder's run scans and compares the photographs; nothing is made with its generator.
    run = Run.create(folder, config.model_copy(update={"generator": GeneratorConfig()}))
    data, features = open_dataset(run), config.features
    extractor = load_extractor(
        features.extractor, features.source, offline=config.backbone.offline, device=device_of(config)
    )
    settings = [affecting(config, output) for output in ("train", "generate", "controls", "prove")]
    identity = digest(settings, dict(config.generator.settings), data.hash, extractor.fingerprint, folds)
    work = run.path("state", "choice", identity[:12])
    cached = FeatureCache(extractor, work / "features", half=True)
    judges = _judges(run, data, config, work, cached, folds)
    if not any(judge.fold.judged for judge in judges):
        raise DataError(
            "no defect type has shots of two different pieces, so that one could judge the other; add photographs of "
            "more pieces, or name a generator yourself"
        )
    count = len(judges) * (1 + len(tried) + len(FEWER) + 2)
    with run.alone("choose"), progress("choose", count, "trainings") as advance:
        choice = _chosen(config, judges, tried, advance, extractor.name)
        cached.forget()
        write_choice(run.folder, choice)
    return choice


def chosen_config(config: Config, out: Path) -> Config:
    """Return a configuration of generator "auto" with its generators named: what `choose` chooses in `out`/choice.

    Args:
        config: What `flawsmith run` was given.
        out: The run's folder.

    Raises:
        RunError: nothing that was tried helps any defect type, or the folder is no run's.
    """
    Run.create(out, config.model_copy(update={"generator": GeneratorConfig()}))  # a folder that is no run's is refused
    folder = out / "choice"
    choice = choose(config, folder)
    if not any(one.candidate for one in choice.defects):
        raise RunError(
            f"none of what was tried helps beyond its error, so nothing is made; see {folder / WORDS}, and name a "
            "generator in generator.name to make samples all the same"
        )
    return choice.config


def _judges(run: Run, data: Dataset, config: Config, work: Path, extractor: FeatureCache, folds: int) -> list[Judge]:
    rows = read_json(run.path("data.json"))
    tests = frozenset(content_hash(one.image) for one in (*data.split.test_defects, *data.split.test_normals))
    return [
        Judge(fold, data, rows, config, confined(work, product, f"fold {fold.number}"), extractor, tests)
        for product in sorted({shot.product for shot in data.split.shots})
        for fold in folds_of(data.split.of(product), folds)
    ]


def _chosen(
    config: Config, judges: Sequence[Judge], tried: Sequence[Candidate], advance: Advance, extractor: str
) -> Choice:
    """Try the candidates, then the mixture of what was taken."""

    def answers(name: str, samples_of: Callable[[Judge], Samples]) -> list[Figures]:
        figures = []
        for judge in judges:
            figures.append(judge.figures(name, samples_of(judge)))
            advance(1, f"{name.partition(';')[0]}, {judge.product}, fold {judge.fold.number}")
        return figures

    real = answers(REAL, lambda judge: Samples((), ()))
    trials = [Trial.of(one.name, answers(one.name, partial(Judge.made, candidate=one)), real, one) for one in tried]
    defects = sorted({defect for judge in judges for defect in judge.shots})
    taken = {defect: best for defect in defects if (best := _best(trials, defect))}
    mixture = Mixture({defect: trial.candidate for defect, trial in taken.items() if trial.candidate})
    per_shot, controls, variations = dict.fromkeys(taken, MOST), True, []
    if taken:
        whole = answers(mixture.name, mixture.samples)
        for number in FEWER:
            less = Mixture(mixture.of, number)
            trial = Trial.of(f"{number} per shot", answers(less.name, less.samples), whole)
            # Fewer only where they are clearly better: more cost seconds, and the folds know fewer shots than the run.
            per_shot |= {defect: number for defect in taken if trial.serves(defect)}
            variations.append(trial)
        bare = Mixture(mixture.of, controls=False)
        variations.append(Trial.of("no controls", answers(bare.name, bare.samples), whole))
        controls = not variations[-1].mean.helps
    choices = [
        DefectChoice(
            defect,
            mixture.of.get(defect),
            per_shot.get(defect, 0),
            taken[defect].effect(defect) if defect in taken else None,
            sum(defect in judge.fold.judged for judge in judges),
        )
        for defect in defects
    ]
    return Choice(
        config=_configured(config, choices, controls, judges),
        defects=tuple(choices),
        trials=tuple(trials),
        variations=tuple(variations),
        real=mean_figures(real),
        folds=len(judges),
        detectors=tuple(config.prove.detectors),
        extractor=extractor,
    )


def _best(trials: Sequence[Trial], defect: str) -> Trial | None:
    """Return what serves a type most; None = nothing serves it. A type that no fold judged follows the others."""
    serving = [trial for trial in trials if trial.serves(defect)]
    return max(serving, key=lambda trial: trial.effect(defect).value, default=None)


def _configured(config: Config, choices: Sequence[DefectChoice], controls: bool, judges: Sequence[Judge]) -> Config:
    """Return the configuration that makes what was chosen."""
    shots = {one.defect: max(judge.all_shots.get(one.defect, 0) for judge in judges) for one in choices}
    taken = {one.defect: one.candidate for one in choices if one.candidate}
    if not taken:
        return config
    masks = {defect: candidate.masks for defect, candidate in taken.items()}
    used = {candidate.generator: candidate.settings_in(config) for candidate in taken.values()}
    generator = GeneratorConfig(
        name={defect: candidate.generator for defect, candidate in taken.items()},
        settings={name: settings for name, settings in sorted(used.items()) if settings},
    )
    if len(used) == 1 and len(taken) == len(choices):
        ((name, settings),) = used.items()
        generator = GeneratorConfig(name=name, settings=settings)
    generate = {
        "count": {one.defect: one.per_shot * shots[one.defect] for one in choices},
        "masks": masks if len(set(masks.values())) > 1 else next(iter(masks.values())),
        **({} if controls else {"controls": 0.0}),
    }
    return config.model_copy(update={"generator": generator, "generate": config.generate.model_copy(update=generate)})
