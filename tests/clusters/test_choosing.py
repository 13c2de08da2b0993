"""flawsmith choose --workers: processes decide what one decides, share its answers, and wait for each other."""

from __future__ import annotations

from pathlib import Path

from flawsmith.choice.candidates import Mixture, candidates
from flawsmith.choice.choose import choose
from flawsmith.choice.panel import Panel, Sitting, extractor_of, judges_of
from flawsmith.config import Config, load_config
from flawsmith.data import factory
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run


def of_two_shots(folder: Path) -> Config:
    factory.write_dataset(folder, "tile", ("chip",), normals=12, per_defect=3, seed=3, size=64)
    return load_config(
        None,
        {
            "data.root": str(folder),
            "data.shots": 2,
            "prove.detectors": ["probe"],
            "prove.size": 64,
            "prove.budget": 0.02,
        },
    )


def test_two_processes_choose_what_one_chooses(tmp_path: Path) -> None:
    config = of_two_shots(tmp_path / "parts")
    both = choose(config, tmp_path / "two", folds=2, workers=2)
    assert both.tree() == choose(config, tmp_path / "one", folds=2, workers=1).tree()
    assert not list((tmp_path / "two").rglob("features/*/*")), "features are of no use to anybody else"
    answers = sorted((tmp_path / "two" / "state" / "choice").rglob("answers/*.json"))
    kept = {path: path.stat().st_mtime_ns for path in answers}
    assert kept
    answers[0].unlink()
    assert choose(config, tmp_path / "two", folds=2, workers=1).tree() == both.tree()
    others = kept.keys() - {answers[0]}
    assert {path: path.stat().st_mtime_ns for path in others} == {path: kept[path] for path in others}


def test_processes_that_need_the_same_samples_make_them_once(tmp_path: Path) -> None:
    config = of_two_shots(tmp_path / "parts")
    run = Run.create(tmp_path / "run", config)
    sitting = Sitting(run.folder, config, run.path("work"), folds=2)
    judges, _ = judges_of(sitting, open_dataset(run), extractor_of(config))
    crop_paste = next(one for one in candidates(()) if one.generator == "crop_paste")
    panel = Panel(sitting, judges[:1], workers=3)
    told: list[str] = []
    with panel.sitting():
        figures = panel.ask([Mixture({"chip": crop_paste}, number) for number in (10, 3, 1)], told.append)
    assert len(figures) == len(told) == 3
    assert len(list(sitting.work.rglob("answers/*.json"))) == 3
