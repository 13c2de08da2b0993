"""flawsmith choose --workers: two processes decide what one decides, and share what it has answered already."""

from __future__ import annotations

from pathlib import Path

from flawsmith.choice.choose import choose
from flawsmith.config import load_config
from flawsmith.data import factory


def test_two_processes_choose_what_one_chooses(tmp_path: Path) -> None:
    factory.write_dataset(tmp_path / "parts", "tile", ("chip",), normals=12, per_defect=3, seed=3, size=64)
    config = load_config(
        None,
        {
            "data.root": str(tmp_path / "parts"),
            "data.shots": 2,
            "prove.detectors": ["probe"],
            "prove.size": 64,
            "prove.budget": 0.02,
        },
    )
    both = choose(config, tmp_path / "two", folds=2, workers=2)
    assert both.tree() == choose(config, tmp_path / "one", folds=2, workers=1).tree()
    answers = sorted((tmp_path / "two" / "state" / "choice").rglob("answers/*.json"))
    kept = {path: path.stat().st_mtime_ns for path in answers}
    assert kept
    answers[0].unlink()
    assert choose(config, tmp_path / "two", folds=2, workers=1).tree() == both.tree()
    others = kept.keys() - {answers[0]}
    assert {path: path.stat().st_mtime_ns for path in others} == {path: kept[path] for path in others}
