"""run/review.py and run/painted.py: what people decided is never lost, and export and proof do as they said."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flawsmith import files
from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.errors import DataError, RunError
from flawsmith.evaluation.arms import made_of
from flawsmith.exports.export import export, exported
from flawsmith.files import write_lines
from flawsmith.locks import BusyError
from flawsmith.reporting.collect import collect
from flawsmith.reporting.proof import proof_section
from flawsmith.reporting.report import is_reported, report
from flawsmith.reporting.sections import document_of
from flawsmith.reporting.verdict import verdict_of
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.painted import painted_pairs
from flawsmith.run.records import MADE, Reason, Repair, Sample, Verdict, append_records, write_records
from flawsmith.run.review import FILE, Review, content_of, decide, redrawn, reviews
from flawsmith.run.screened import require_kept

TYPES = ("crack", "chip", "crack", "chip", "crack")
REJECTED = (1, 4)
"""By the gate."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    factory.write_dataset(root, "magnet", ["crack", "chip"], normals=3, per_defect=3, seed=1, size=64)
    return root


@pytest.fixture
def run(photographs: Path, tmp_path: Path) -> Run:
    """Return a screened run of five samples, of which the gate rejected two."""
    config = load_config(None, {"data.root": str(photographs), "prove.enabled": False, "export.formats": ["mvtec"]})
    made = Run.create(tmp_path / "run", config)
    normal = open_dataset(made).split.normals[0]
    photograph = images.read(normal.image)
    samples, verdicts = [], []
    for index, defect in enumerate(TYPES):
        mask = np.zeros(photograph.shape[:2], bool)
        mask[8 : 12 + index, 10:30] = True
        picture = photograph.copy()
        picture[mask] //= 2
        files = f"samples/{index:06d}.png", f"samples/{index:06d}.mask.png"
        images.write(made.path(files[0]), picture)
        images.write_mask(made.path(files[1]), mask)
        samples.append(
            Sample(
                index=index,
                role="sample",
                status=MADE,
                generator="perlin",
                product="magnet",
                defect=defect,
                normal=normal.id,
                shot="",
                seed=index,
                attempt=0,
                paint="replace",
                windows=(),
                painted_share=1.0,
                area=int(mask.sum()),
                image=files[0],
                mask=files[1],
            )
        )
        reasons = (Reason("seam", "its border shows"),) if index in REJECTED else ()
        verdicts.append(Verdict(f"{index:06d}", "magnet", defect, not reasons, reasons, {"seam": 0.5}, {"seam": 0.6}))
    append_records(made.path("samples.jsonl"), samples)
    write_records(made.path("scores.jsonl"), verdicts)
    for stage in ("generate", "screen"):
        made.finish(stage, stage, {"settings": {}, "content": {}})
    return made


def kept(run: Run) -> list[tuple[int, str]]:
    return [(sample.index, sample.defect) for sample in run.kept()]


def sample(run: Run, index: int) -> Sample:
    return run.samples()[index]


def test_without_reviews_the_gate_decides(run: Run) -> None:
    assert kept(run) == [(0, "crack"), (2, "crack"), (3, "chip")]
    before = run.samples_hash()
    decide(run.folder, sample(run, 0), "")  # nothing but the gate's own word
    assert run.samples_hash() == before and kept(run)[0] == (0, "crack")


def test_export_and_proof_do_as_people_said(run: Run) -> None:
    export(run)
    before = run.samples_hash()
    decide(run.folder, sample(run, 0), "reject")
    decide(run.folder, sample(run, 4), "keep")
    decide(run.folder, sample(run, 3), "", "crack")
    decide(run.folder, sample(run, 1), "keep", "crack")
    decided = [(1, "crack"), (2, "crack"), (3, "crack"), (4, "crack")]
    assert kept(run) == decided
    assert [(int(one.id[8:14]), one.defect) for one in exported(run) if one.painted_on] == decided
    samples, _ = made_of(run, "magnet")
    assert [(int(one.example.id[8:14]), one.example.defect, one.rank) for one in samples] == [
        (index, defect, rank) for rank, (index, defect) in enumerate(decided)
    ]
    assert run.samples_hash() != before and not run.rejected()
    export(run)  # its record is out of date, so it is written anew
    folder = run.path("export", "mvtec", "magnet", "test")
    assert len(list((folder / "crack").iterdir())) == 4 and not (folder / "chip").exists()
    for index in (0, 1, 3, 4):
        decide(run.folder, sample(run, index), "")
    assert run.samples_hash() == before and len(run.rejected()) == 2


def test_a_rejected_sample_that_is_taken_back_is_not_deleted(run: Run) -> None:
    decide(run.folder, sample(run, 4), "keep")
    assert [one.index for one, _ in run.rejected()] == [1]


def test_a_sample_whose_picture_was_deleted_cannot_be_kept(run: Run) -> None:
    before = kept(run)
    run.path(sample(run, 4).image).unlink()
    decide(run.folder, sample(run, 4), "keep")
    assert kept(run) == before


def test_a_decision_holds_for_the_picture_that_was_seen(run: Run) -> None:
    decide(run.folder, sample(run, 0), "reject")
    path = run.path(sample(run, 0).image)
    images.write(path, images.read(path)[::-1].copy())
    assert (0, "crack") in kept(run)
    assert not reviews(run.folder, run.samples())


def test_a_type_that_the_product_has_no_shots_of_teaches_no_detector(run: Run) -> None:
    """It was borrowed from another product; people may say that a sample is of it."""
    borrowed = replace(sample(run, 0), index=5, defect="rust", transferred_from="nut")
    append_records(run.path("samples.jsonl"), [borrowed])
    decide(run.folder, sample(run, 0), "keep", "rust")
    assert (0, "rust") in kept(run)
    samples, _ = made_of(run, "magnet")
    assert {made.example.defect for made in samples} == {"crack", "chip"} and len(samples) == 2


def test_a_control_of_what_nobody_can_judge_is_left_out(run: Run) -> None:
    """Beside shots of other types a run may draw one that has none, with negative controls."""
    drawn = replace(sample(run, 0), index=5, defect="rust", shot="")
    append_records(run.path("samples.jsonl"), [drawn])
    controls = [replace(sample(run, 2), role="control", index=at, control_of=of) for at, of in enumerate((5, 2))]
    append_records(run.path("controls.jsonl"), controls)
    assert [made.rank for made in made_of(run, "magnet")[1]] == [1]


def test_no_decision_is_lost(run: Run) -> None:
    with open(run.path(FILE), "w") as file:
        file.write('{"sample": 9, "content": "torn')  # killed while writing

    def judge(index: int) -> None:
        for word in ("keep", "reject", "keep", "reject"):
            decide(run.folder, sample(run, index), word)

    threads = [threading.Thread(target=judge, args=(index,)) for index in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in run.path(FILE).read_text().splitlines()]
    assert len(lines) == 20 and {line["sample"] for line in lines} == set(range(5))
    assert not run.kept()
    with pytest.raises(RunError, match=r"reviewed the samples rejected all.*review\.jsonl"):
        exported(run)


def test_a_decision_reads_no_picture_again_however_many_are_decided(run: Run, tmp_path: Path) -> None:
    """8400 samples are 16,800 files."""
    first, folder = run.samples()[0], tmp_path / "many"
    (folder / "samples").mkdir(parents=True)
    samples = []
    for index in range(8400):
        image, mask = f"samples/{index:06d}.png", f"samples/{index:06d}.mask.png"
        for name in (image, mask):
            (folder / name).write_bytes(name.encode())
        samples.append(replace(first, index=index, image=image, mask=mask))
    lines = (Review(one.index, content_of(folder, one), "keep").to_json() for one in samples)
    write_lines(folder / FILE, lines)
    read = files._file_digest.cache_info().misses
    assert len(reviews(folder, samples)) == len(samples)
    assert files._file_digest.cache_info().misses == read


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"sample": 0, "content": "x", "word": "maybe"}', "'maybe' is no decision"),
        ('{"sample": "0", "content": "x", "word": "keep"}', "no sample's number"),
        ('{"content": "x", "word": "keep"}', "'sample' is missing"),
        ("[]", "does not hold"),
    ],
)
def test_an_edited_line_is_named(run: Run, line: str, said: str) -> None:
    run.path(FILE).write_text(line + "\n")
    with pytest.raises(RunError, match=f"review.jsonl: .*{said}.*delete that line"):
        run.kept()


def test_an_unknown_type_is_named(run: Run) -> None:
    decide(run.folder, sample(run, 0), "keep", "scratch")
    with pytest.raises(RunError, match="sample 0 is of no type 'scratch'; did you mean 'crack'"):
        run.kept()


def test_what_was_painted_by_hand_is_exported(run: Run) -> None:
    place = run.path("painted", "magnet", "chip")
    one = sample(run, 0)
    normal = next(e for e in open_dataset(run).split.normals if e.id == one.normal)
    for name in ("000001", "000002"):
        images.write(place / f"{name}.png", images.read(run.path(one.image)))
        images.write_mask(place / f"{name}.mask.png", images.read_mask(run.path(one.mask), (64, 64)))
    record = {"product": "magnet", "defect": "chip", "photograph": str(normal.image), "generator": "perlin"}
    (place / "000001.json").write_text(json.dumps({**record, "seed": 3, "area": one.area}))
    (pair,) = painted_pairs(run.path("painted"))  # 000002 has no record: it was being written
    assert (pair.name, pair.seed, pair.area) == ("magnet/chip/000001", 3, one.area)
    (example,) = [one for one in exported(run) if one.id.startswith("painted/")]
    assert (example.defect, example.painted_on, example.split) == ("chip", normal.id, "test")
    moved = str(Path("/elsewhere", normal.id))  # the photographs have moved since, or it was never one of them
    for photograph, painted_on in ((moved, normal.id), ("/other/x.png", "/other/x.png"), ("", "magnet/chip/000001")):
        (place / "000001.json").write_text(
            json.dumps({**record, "photograph": photograph, "seed": 3, "area": one.area})
        )
        assert [one.painted_on for one in exported(run) if one.id.startswith("painted/")] == [painted_on]
    (place / "000001.json").write_text(json.dumps({**record, "seed": 3, "area": one.area}))
    export(run)
    assert len(list(run.path("export", "mvtec", "magnet", "test", "chip").iterdir())) == 2
    (place / "000001.mask.png").unlink()
    with pytest.raises(RunError, match=r"000001\.json: its picture or its mask is missing"):
        exported(run)
    (place / "000001.json").write_text(json.dumps({**record, "seed": "x", "area": 1}))
    images.write_mask(place / "000001.mask.png", np.ones((64, 64), bool))
    with pytest.raises(RunError, match="does not hold what flawsmith writes"):
        exported(run)


def test_a_label_that_the_gate_repaired_stays_repaired(run: Run) -> None:
    verdicts = list((run.verdicts() or {}).values())
    repair = Repair("repaired/000000.png", "repaired/000000.mask.png", 7)
    write_records(run.path("scores.jsonl"), [replace(verdicts[0], repair=repair), *verdicts[1:]])
    decide(run.folder, sample(run, 0), "keep", "chip")
    first = run.kept()[0]
    assert (first.image, first.area, first.defect) == ("repaired/000000.png", 7, "chip")


def test_a_mask_that_is_drawn_anew(run: Run) -> None:
    one = sample(run, 0)
    photograph = next(e for e in open_dataset(run).split.normals if e.id == one.normal).image
    picture, normal = images.read(run.path(one.image)), images.read(photograph)
    mask = np.zeros((64, 64), bool)
    mask[9:11, 5:20] = True  # a part of what was painted, and a little that was not
    repair = redrawn(run.folder, one, mask, photograph)
    before = run.samples_hash()
    decide(run.folder, one, "", repair=repair)
    stands = run.kept()[0]
    assert (stands.image, stands.area, stands.defect) == (repair.image, 30, "crack")
    assert run.samples_hash() != before
    mended = images.read(run.path(stands.image))
    assert (images.read_mask(run.path(stands.mask), (64, 64)) == mask).all()
    assert not images.differs(mended, normal)[~mask].any() and not images.differs(mended, picture)[mask].any()
    assert not images.differs(images.read(run.path(one.image)), picture).any()  # the sample itself stays
    made = [e for e in exported(run) if e.painted_on]
    assert made[0].masks == (run.path(repair.mask),)
    decide(run.folder, one, "")
    assert run.kept()[0].image == one.image and run.samples_hash() == before
    with pytest.raises(DataError, match="is empty"):
        redrawn(run.folder, one, np.zeros((64, 64), bool), photograph)
    with pytest.raises(DataError, match="64 x 32"):
        redrawn(run.folder, one, mask[:32], photograph)
    with pytest.raises(DataError, match="has changed since sample 0"):
        redrawn(run.folder, one, mask, run.path(one.mask))


def test_a_redrawn_mask_lies_in_the_run(run: Run) -> None:
    decide(run.folder, sample(run, 0), "", repair=Repair("../x.png", "x.mask.png", 3))
    with pytest.raises(RunError, match="leads upwards"):
        run.kept()


def test_a_rejected_sample_that_is_kept_has_the_label_that_was_shown(run: Run) -> None:
    """The gate repaired it and rejected it all the same; the studio shows the repaired label."""
    verdicts = list((run.verdicts() or {}).values())
    repair = Repair("repaired/000001.png", "repaired/000001.mask.png", 7)
    write_records(run.path("scores.jsonl"), [verdicts[0], replace(verdicts[1], repair=repair), *verdicts[2:]])
    decide(run.folder, sample(run, 1), "keep")
    assert [one.mask for one in run.kept() if one.index == 1] == ["repaired/000001.mask.png"]


def test_a_mask_that_was_drawn_anew_and_edited_is_not_exported(run: Run) -> None:
    photograph = next(e for e in open_dataset(run).split.normals if e.id == sample(run, 0).normal).image
    mask = np.zeros((64, 64), bool)
    mask[9:11, 12:20] = True
    repair = redrawn(run.folder, sample(run, 0), mask, photograph)
    decide(run.folder, sample(run, 0), "", repair=repair)
    assert exported(run)
    images.write_mask(run.path(repair.mask), ~mask)
    with pytest.raises(RunError, match=r"reviewed/000000-[0-9a-f]{8}\.mask\.png changed"):
        exported(run)


def test_the_report_counts_what_people_said(run: Run) -> None:
    def counts() -> tuple[int, int, int]:
        facts = collect(run)
        return facts.total("kept"), facts.total("rejected"), facts.total("turned_down")

    report(run)
    assert counts() == (3, 2, 0) and is_reported(run)
    decide(run.folder, sample(run, 1), "keep")
    assert not is_reported(run), "the report shows a sample as rejected"
    decide(run.folder, sample(run, 0), "reject")
    assert counts() == (3, 1, 1)
    document = document_of(collect(run))
    assert "People rejected 1 more sample." in document.summary
    assert ("1", "samples rejected by people") in {(one.value, one.label) for one in document.figures}
    for index in (1, 2, 3):
        decide(run.folder, sample(run, index), "reject")
    assert counts() == (0, 1, 4)
    exact = collect(run).exact
    assert exact.samples == 5 and exact.holds, "rejected ones are compared too"


def test_what_was_found_of_other_samples_is_not_shown(run: Run) -> None:
    content = {"settings": {}, "content": {"samples": run.samples_hash()}}
    run.finish("prove", "p", content)
    run.path("proof.json").write_text('{"generator": "perlin", "products": {}}')
    assert run.is_current("prove") and verdict_of(run) == ""
    decide(run.folder, sample(run, 0), "reject")
    assert not run.is_current("prove") and "Other samples stand than were proven; `flawsmith prove" in verdict_of(run)
    assert proof_section(run, open_dataset(run).split) is None
    decide(run.folder, sample(run, 0), "")
    assert run.is_current("prove") and not run.is_current("measure")


def test_a_run_ends_where_people_rejected_all(run: Run) -> None:
    for index in range(5):
        decide(run.folder, sample(run, index), "reject")
    with pytest.raises(RunError, match=r"no sample stands, whoever reviewed the samples rejected all"):
        require_kept(run)
    for index in range(5):
        decide(run.folder, sample(run, index), "")
    require_kept(run)
    run.path("scores.jsonl").unlink()
    with pytest.raises(RunError, match=r"scores.jsonl is missing; `flawsmith screen"):
        require_kept(run)


def test_settings_stay_while_another_process_is_at_it(run: Run) -> None:
    before = run.path("config.json").read_bytes()
    other = run.config.model_copy(update={"seed": 99})
    with (
        run.alone("train"),
        pytest.raises(BusyError, match="another process is at train of this run, with other settings"),
    ):
        Run.create(run.folder, other)
    assert run.path("config.json").read_bytes() == before
    with run.alone("train"):
        assert Run.create(run.folder, run.config).config == run.config
    assert Run.create(run.folder, other).config.seed == 99


def test_a_pair_that_was_painted_under_a_free_name_is_another(run: Run) -> None:
    place = run.path("painted", "magnet", "chip")
    record = {"product": "magnet", "defect": "chip", "photograph": "x.png", "generator": "perlin", "seed": 1, "area": 4}

    def paint(level: int) -> bytes:
        picture = np.full((64, 64), 90, np.uint8)
        picture[2:4, 2:4] = level
        images.write(place / "000001.png", picture)
        images.write_mask(place / "000001.mask.png", picture == level)
        (place / "000001.json").write_text(json.dumps(record))
        export(run)
        written = [images.read(path) for path in run.path("export/mvtec/magnet/test/chip").iterdir()]
        return b"".join(sorted(one.tobytes() for one in written))

    assert paint(10) != paint(200)
