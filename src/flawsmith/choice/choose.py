"""Which generator, masks and number of samples serve each defect type? Decided inside the shots, by folds.

    choice = flawsmith.choose(load_config("tile.toml"), "choices/tile")
    flawsmith.run_all(Run.create("runs/tile", choice.config))

For each fold everything is made and learned anew without its shots and normal parts, and the detector is then asked
about them. The run's test pictures are never looked at: they are refused as pictures to learn from, and no fold holds
them. First every candidate makes MOST samples per shot, and each type takes the one that helps it most beyond its
standard error, or none. Types that took none are asked again beside the samples of the others, for all types share one
detector. Then the mixture of what was taken is tried with fewer samples, and without negative controls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from flawsmith import registry
from flawsmith.choice.candidates import MOST, Candidate, Mixture, candidates
from flawsmith.choice.panel import Panel, Sitting, extractor_of, judges_of
from flawsmith.choice.records import Choice, DefectChoice, Trial, mean_figures
from flawsmith.choice.words import WORDS, write_choice
from flawsmith.config import Config, GeneratorConfig, affecting
from flawsmith.data.split import Split
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.evaluation.trainings import device_of
from flawsmith.files import digest
from flawsmith.processes import cores
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.types import Advance

FEWER = (3, 1)
"""Samples per shot that are tried with the mixture, beside MOST."""
FOLDS = 5


def choose(
    config: Config, folder: str | Path, *, folds: int = FOLDS, also: Sequence[str] = (), workers: int = 0
) -> Choice:
    """Choose, and write choice.json, choice.md and chosen.toml into a folder; goes on where it was stopped.

    Args:
        config: What will be run; `generator`, `generate.masks`, `generate.count` and `generate.controls` are chosen.
        folder: Where the choice is written and worked out.
        folds: Into how many folds the shots are dealt.
        also: Generators to try beside the usual ones; those that train take minutes to hours in each fold.
        workers: Answers that are worked out at the same time, each in a process of its own; 0 = one per processor, on
            a card one. What is chosen is the same.

    Raises:
        ConfigError: fewer than two folds, negative workers, or an unknown generator or detector.
        DataError: no defect type has shots of two pieces, so that one could judge the other.
    """
    if folds < 2:
        raise ConfigError(f"folds: {folds} leaves nothing to judge by; take 2 or more")
    if workers < 0:
        raise ConfigError(f"workers: {workers} is no number of processes; take 0 for one per processor")
    tried = candidates(also)
    for name in config.prove.detectors:
        registry.require("detectors", name, "prove.detectors")
    # The folder's run scans and compares the photographs; nothing is made with its generator.
    run = Run.create(folder, config.model_copy(update={"generator": GeneratorConfig()}))
    data, features = open_dataset(run), extractor_of(config)
    settings = [affecting(config, output) for output in ("train", "generate", "controls", "prove")]
    identity = digest(settings, dict(config.generator.settings), data.hash, features.fingerprint, folds)
    at_once = workers or _at_once(config)
    sitting = Sitting(run.folder, _painting_alone(config, at_once), run.path("state", "choice", identity[:12]), folds)
    judges, cached = judges_of(sitting, data, features)
    if not any(judge.fold.judged for judge in judges):
        raise DataError(
            "no defect type has shots of two different pieces, so that one could judge the other; add photographs of "
            "more pieces, or name a generator yourself"
        )
    panel = Panel(sitting, judges, at_once)
    count = len(judges) * (1 + len(tried) + len(FEWER) + 4)
    with run.alone("choose"), progress("choose", count, "trainings") as advance, panel.sitting():
        choice = _chosen(config, panel, tried, _most_shots(data.split), advance)
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


def _at_once(config: Config) -> int:
    """Return how many answers are worked out at the same time: one per processor, on a card one."""
    return cores() if device_of(config) == "cpu" else 1


def _painting_alone(config: Config, at_once: int) -> Config:
    """Return the configuration for processes that are as many as the processor has room for: each paints by itself."""
    if at_once == 1:
        return config
    return config.model_copy(update={"generate": config.generate.model_copy(update={"workers": 1})})


def _chosen(
    config: Config, panel: Panel, tried: Sequence[Candidate], shots: Mapping[str, int], advance: Advance
) -> Choice:
    """Try the candidates, then the mixture of what was taken.

    Args:
        config: What will be run.
        panel: Who is asked.
        tried: The candidates.
        shots: Every defect type, also one that no fold can judge -> how many shots of it the product with most has.
        advance: Told of every answer.
    """
    judges = panel.judges
    heard = partial(advance, 1)
    real, *answers = panel.ask([None, *tried], heard)
    trials = [Trial.of(one.name, figures, real, one) for one, figures in zip(tried, answers, strict=True)]
    defects = sorted(shots)
    taken = {defect: best for defect in defects if (best := _best(trials, defect))}
    effects = {defect: trial.effect(defect) for defect, trial in taken.items()}
    every, late = None, dict[str, Trial]()
    rest = {defect: _largest(trials, defect) for defect in defects if defect not in taken}
    if taken and any(rest.keys() & set(judge.fold.judged) for judge in judges):
        # All types share one detector: a type that takes nothing beside others that take may be worse off than with the
        # shots alone. So it is asked again, beside them; samples are made now anyway, so what is likelier is enough.
        without, with_rest = panel.ask([_mixture(taken), _mixture(taken | rest)], heard)
        every = Trial.of("samples of all types", with_rest, without).about(rest)
        late = {defect: trial for defect, trial in rest.items() if every.raises(defect)}
        effects |= {defect: every.effect(defect) for defect in late}
        taken |= late
    else:
        advance(2 * len(judges))
    mixture = _mixture(taken)
    per_shot, controls, variations = dict.fromkeys(taken, MOST), True, []
    if taken:
        fewer = [Mixture(mixture.of, number) for number in FEWER]
        whole, *less, bare = panel.ask([mixture, *fewer, Mixture(mixture.of, controls=False)], heard)
        for number, figures in zip(FEWER, less, strict=True):
            trial = Trial.of(f"{number} per shot", figures, whole)
            # Fewer only where they are clearly better: more cost seconds, and the folds know fewer shots than the run.
            per_shot |= {defect: number for defect in taken if trial.serves(defect)}
            variations.append(trial)
        variations.append(Trial.of("no controls", bare, whole))
        controls = not variations[-1].mean.helps
    choices = [
        DefectChoice(
            defect,
            mixture.of.get(defect),
            per_shot.get(defect, 0),
            effects.get(defect),
            sum(defect in judge.fold.judged for judge in judges),
            beside=defect in late,
        )
        for defect in defects
    ]
    return Choice(
        config=_configured(config, choices, controls, shots),
        defects=tuple(choices),
        trials=tuple(trials),
        every=every,
        variations=tuple(variations),
        real=mean_figures(real),
        folds=len(judges),
        detectors=tuple(config.prove.detectors),
        extractor=judges[0].features.name,
    )


def _most_shots(split: Split) -> dict[str, int]:
    """Return each defect type -> how many shots of it the product with most of them has."""
    most: dict[str, int] = {}
    for (_, defect), number in Counter((shot.product, str(shot.defect)) for shot in split.shots).items():
        most[defect] = max(number, most.get(defect, 0))
    return most


def _best(trials: Sequence[Trial], defect: str) -> Trial | None:
    """Return what serves a type most; None = nothing serves it. A type that no fold judged follows the others."""
    serving = [trial for trial in trials if trial.serves(defect)]
    return _largest(serving, defect) if serving else None


def _largest(trials: Sequence[Trial], defect: str) -> Trial:
    """Return what raises a type's figure most, or lowers it least."""
    return max(trials, key=lambda trial: trial.effect(defect).value)


def _mixture(taken: Mapping[str, Trial]) -> Mixture:
    return Mixture({defect: trial.candidate for defect, trial in taken.items() if trial.candidate})


def _configured(config: Config, choices: Sequence[DefectChoice], controls: bool, shots: Mapping[str, int]) -> Config:
    """Return the configuration that makes what was chosen."""
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
