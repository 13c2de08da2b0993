"""How masks are read is decided once per run, kept in data.json, and the same for check, run and every later reader."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flawsmith.config import Config, DataConfig, MaskConfig
from flawsmith.data import images
from flawsmith.data.masks import stored
from flawsmith.data.masks.reading import read_label
from flawsmith.data.training_set import TrainingSet, read_scaled
from flawsmith.detectors import probe
from flawsmith.detectors.unet import focal_loss
from flawsmith.errors import DataError
from flawsmith.files import read_json
from flawsmith.preflight.check import check
from flawsmith.run import mask_reading
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.types import Example, MaskRule

SIZE = (48, 64)


def area(top: int = 8, side: int = 12) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, 10 : 10 + side] = True
    return mask


def write(root: Path, index: int, values: np.ndarray) -> None:
    """A photograph of a scratch with its mask."""
    noise = np.random.default_rng(100 + index).integers(0, 256, SIZE, dtype=np.uint8)
    images.write(root / f"nut/test/scratch/{index}.png", noise)
    images.write(root / f"nut/ground_truth/scratch/{index}_mask.png", values.astype(np.uint8))


def config(root: Path, masks: list[np.ndarray], **settings: object) -> Config:
    for index in range(5):
        noise = np.random.default_rng(index).integers(0, 256, SIZE, dtype=np.uint8)
        images.write(root / f"nut/train/good/{index}.png", noise)
    for index, values in enumerate(masks):
        write(root, index, values)
    return Config(data=DataConfig(root=root, shots=2, mask=MaskConfig(**settings)))


def with_rim(mask: np.ndarray) -> np.ndarray:
    """1 for damage, 255 for two columns beside it."""
    return np.where(mask, 1, np.where(np.roll(mask, 2, 1), 255, 0))


def test_the_rule_is_decided_once_and_every_reader_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run.create(tmp_path / "run", config(tmp_path / "data", [with_rim(area(8 + i)) for i in range(5)]))
    split = open_dataset(run).split
    rule = MaskRule(ignore=(255.0,))
    assert {example.mask_rule for example in (*split.shots, *split.test_defects)} == {rule}
    assert load_split(run) == split
    assert np.array_equal(read_label(split.shots[0], SIZE), area(8))
    tree = read_json(run.path("data.json"))
    assert [(row["product"], row["defect"], row["ignore"]) for row in tree["masks"]["rules"]] == [
        ("nut", "scratch", [255.0])
    ]
    assert any("255 in its masks is neither damage nor background" in note for note in tree["notes"])

    def no_more(*_: object) -> None:
        raise AssertionError("judged again")

    monkeypatch.setattr(mask_reading, "judge", no_more)
    before = run.path("data.json").read_bytes()
    assert open_dataset(Run.open(tmp_path / "run")).split == split
    assert run.path("data.json").read_bytes() == before


def test_a_palette_may_lack_the_colour_of_what_counts_for_nothing(tmp_path: Path):
    masks = [with_rim(area(8 + i)) for i in range(5)]
    run = Run.create(tmp_path / "run", config(tmp_path / "data", masks))
    for index, values in enumerate(masks):
        mask = Image.frombytes("P", SIZE[::-1], values.astype(np.uint8).tobytes())
        mask.putpalette(list(range(3 * 21)))
        mask.save(tmp_path / f"data/nut/ground_truth/scratch/{index}_mask.png")
    shot = open_dataset(run).split.shots[0]
    assert shot.mask_rule == MaskRule("index", ignore=(255.0,))
    assert np.array_equal(read_label(shot, SIZE), area(8))


def test_a_set_that_grew_is_read_the_same_way_or_it_is_said(tmp_path: Path):
    run = Run.create(tmp_path / "run", config(tmp_path / "data", [area(8 + i) * 1 for i in range(5)]))
    first = open_dataset(run)
    write(tmp_path / "data", 5, area(20) * 1)
    grown = open_dataset(run)
    assert not any("read in another way" in note for note in grown.split.notes)
    assert grown.hashes.items() >= first.hashes.items()
    write(tmp_path / "data", 6, with_rim(area(20)))
    changed = open_dataset(run)
    (note,) = [note for note in changed.split.notes if "read in another way" in note]
    assert "nut/scratch" in note and "ignore: () before, (255.0,) now" in note
    shot = changed.split.shots[0].id
    assert changed.hashes[shot] != first.hashes[shot]


def test_check_and_run_say_the_same(tmp_path: Path):
    masks = [np.where(area(8 + i), 1, np.where(area(32), 2, 0)) for i in range(5)]
    made = config(tmp_path / "data", masks)
    (error,) = [one for one in check(made).errors if "several values" in one]
    with pytest.raises(DataError, match="several values") as caught:
        open_dataset(Run.create(tmp_path / "run", made))
    assert str(caught.value) == error
    said = Config(data=made.data.model_copy(update={"mask": MaskConfig(values={"scratch": 1, "dent": 2})}))
    assert check(said).errors == [one for one in check(made).errors if one != error]
    split = open_dataset(Run.create(tmp_path / "said", said)).split
    assert np.array_equal(read_label(split.shots[0], SIZE), area(8))


def test_a_doubtful_label_stops_a_shot_and_only_warns_of_a_test_picture(tmp_path: Path):
    large = ~area()
    made = config(tmp_path / "a", [area() * 255, area(9) * 255, area(10) * 255, area(11) * 255, large * 255])
    assert any("95 % of the picture damaged: inverted?" in warning for warning in check(made).warnings)
    run = Run.create(tmp_path / "run-a", made)
    open_dataset(run)
    assert any(
        "scratch/4.png: the mask calls 95 %" in warning for warning in read_json(run.path("data.json"))["warnings"]
    )
    made = config(tmp_path / "b", [large * 255, area(9) * 255, area(10) * 255, area(11) * 255])
    assert any("1 shot cannot be learned from: the mask calls 95 %" in error for error in check(made).errors)
    with pytest.raises(DataError, match="1 shot cannot be learned from:\nnut/test/scratch/0.png: the mask calls 95 %"):
        open_dataset(Run.create(tmp_path / "run-b", made))
    made = Config(data=made.data.model_copy(update={"mask": MaskConfig(inverted=False)}))
    assert np.array_equal(read_label(open_dataset(Run.create(tmp_path / "run-c", made)).split.shots[0], SIZE), large)


def test_a_defect_with_an_empty_mask_is_left_out_wherever_it_would_be(tmp_path: Path):
    """Of a test picture there is nothing that could be found: figures of it would be no numbers."""
    nothing = np.zeros(SIZE, bool)
    run = Run.create(tmp_path / "run", config(tmp_path / "set", [area() * 255, nothing, area(9) * 255, nothing]))
    for _ in range(2):  # the second time it is known
        split = open_dataset(run).split
        named = [one.id.rpartition("/")[2] for one in (*split.shots, *split.test_defects)]
        assert named == ["0.png", "2.png"]
        left_out = [note for note in split.notes if "its mask is empty, so it is left out" in note]
        assert [note.partition(":")[0][-5:] for note in left_out] == ["1.png", "3.png"]
    assert load_split(run).test_defects == split.test_defects
    write(tmp_path / "set", 3, area(11) * 255)
    assert [note for note in open_dataset(run).split.notes if "is empty" in note] == left_out[:1]


def test_the_memory_of_masks_gives_way_and_decodes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in "ab":
        images.write(tmp_path / f"{name}.png", area().astype(np.uint8))
    decoded: list[Path] = []
    decode = stored.decode_mask
    monkeypatch.setattr(stored, "decode_mask", lambda path: decoded.append(path) or decode(path))
    wide, tight = stored._Decoded(1 << 20), stored._Decoded(1)
    for memory in (wide, tight):
        for name in ("a", "a", "b", "a"):
            assert np.array_equal(memory.get(tmp_path / f"{name}.png").damage(MaskRule()), area())
    assert [path.stem for path in decoded] == ["a", "b", "a", "b", "a"]


def test_ignored_pixels_are_scaled_and_teach_nothing(tmp_path: Path):
    write(tmp_path, 0, with_rim(area()))
    home = tmp_path / "nut"
    example = Example(
        "0", home / "test/scratch/0.png", "nut", "scratch", (home / "ground_truth/scratch/0_mask.png",),
        mask_rule=MaskRule(ignore=(255,)),
    )  # fmt: skip
    rim = np.roll(area(), 2, 1) & ~area()
    square = read_scaled(example, (96, 96))
    assert square.ignored is not None
    assert not (square.ignored & square.mask).any()
    assert square.ignored.sum() == pytest.approx(rim.sum() * 96 * 96 / rim.size, rel=0.1)
    training = TrainingSet((96, 96), ["scratch"])
    training.add(example, "real")
    counted = training.counted([0])
    assert counted is not None and torch.equal(counted[0, 0].bool(), torch.from_numpy(~square.ignored))
    probability = torch.rand(1, 2, 96, 96, generator=torch.Generator().manual_seed(0)).softmax(1)
    mask = training.batch([0]).mask
    kept = counted[0, 0].bool()
    alone = focal_loss(probability[..., kept][:, :, None], mask[..., kept][:, :, None])
    assert torch.allclose(focal_loss(probability, mask, counted), alone)
    assert not torch.allclose(focal_loss(probability, mask), alone)


def test_a_page_shows_the_outlines_of_shots_first(tmp_path: Path):
    made = config(tmp_path / "data", [with_rim(area(8 + i)) for i in range(9)])
    found = check(made, tmp_path / "my-check.html")
    assert any(f"{tmp_path / 'my-check.html'} shows what was understood" in note for note in found.notes)
    text = (tmp_path / "my-check.html").read_text("utf-8")
    captions = re.findall("<figcaption>(.*?)</figcaption>", text)
    assert captions == [
        f"nut/test/scratch/{n}.png, {kind}, 4.7 % damaged"
        for n, kind in enumerate(["real shot"] * 2 + ["test picture"] * 6)
    ]
    assert "<h2>nut: scratch, 8 of 9</h2>" in text and "<code>flawsmith studio CONFIG</code> shows all" in text
    (tmp_path / "data/nut/test/scratch/8.png").unlink()
    (tmp_path / "data/nut/ground_truth/scratch/8_mask.png").unlink()
    check(made, tmp_path / "all.html")
    assert "8 of 8" in (whole := (tmp_path / "all.html").read_text("utf-8")) and "flawsmith studio" not in whole
    data = re.findall('base64,([^"]+)"', text)[0]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        drawn = np.asarray(picture.convert("RGB")).astype(int)
    red = np.argwhere((drawn[..., 0] - drawn[..., 1] > 60) & (drawn[..., 0] - drawn[..., 2] > 60))
    top, left = red.min(0) * SIZE[0] / drawn.shape[0]
    bottom, right = red.max(0) * SIZE[0] / drawn.shape[0]
    assert (top, left, bottom, right) == pytest.approx((8, 10, 20, 22), abs=1)
    assert "would lie among the photographs" in check(made, tmp_path / "data/my-check.html").notes[-1]
    assert not (tmp_path / "data/my-check.html").exists()


def test_the_probe_draws_no_place_that_is_ignored():
    cover, ignored = torch.zeros(100), torch.zeros(100)
    cover[:10], ignored[10:40] = 0.5, 1.0
    drawn = probe._places(cover, 1000, torch.Generator().manual_seed(0), ignored)
    assert sorted(drawn.tolist()) == [*range(10), *range(40, 100)]
