"""preflight/recognise.py and `flawsmith new --from`: folders as people have them, and what cannot be told."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flawsmith.cli import app
from flawsmith.config import load_config
from flawsmith.data.layouts import scan
from flawsmith.data.layouts.annotated.unlabelled import sounds_normal
from flawsmith.errors import Answer, DataError
from flawsmith.korean import in_korean
from flawsmith.preflight.recognise import SETTING, recognise


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(root: Path, *normal: str, defects: tuple[str, ...] = ("crack", "dent")) -> Path:
    touch(root, *(f"{folder}/{number}.jpg" for folder in normal for number in range(3)))
    return touch(
        root, *(f"{defect}/{number}.{end}" for defect in defects for number in range(2) for end in ("jpg", "png"))
    )


@pytest.mark.parametrize(
    ("name", "normal"),
    [("MT_Free", True), ("OK", True), ("01_good", True), ("no_defect", True), ("without-anomaly", True), ("양품", True)]
    + [("정상 사진", True), ("not_ok", False), ("no good", False), ("NG", False), ("NOK", False), ("scratch", False)]
    + [("okra", False), ("", False), ("defect", False), ("test", False)],
)
def test_what_a_folder_of_normal_parts_is_called(name: str, normal: bool) -> None:
    assert sounds_normal(name) is normal


@pytest.mark.parametrize("folder", ["MT_Free", "정상", "no_defect"])
def test_pairs_with_a_folder_called_after_normal_parts(tmp_path: Path, folder: str) -> None:
    found = recognise(pairs(tmp_path / "tile", folder))
    assert (found.data.layout, found.data.normal) == ("pairs", [folder])


def test_a_folder_without_masks_beside_folders_with_them_is_the_normal_one(tmp_path: Path) -> None:
    assert recognise(pairs(tmp_path, "line1")).data.normal == ["line1"]


def test_two_folders_without_masks_are_asked_about(tmp_path: Path) -> None:
    root = pairs(tmp_path, "line1", "line2")
    with pytest.raises(DataError, match=r"as pairs: .*defects have no mask: line1/0.jpg.*(?s:.*)with --normal"):
        recognise(root)
    assert recognise(root, ["line1", "line2"]).data.normal == ["line1", "line2"]
    with pytest.raises(DataError) as asked:
        recognise(root, by=SETTING)
    assert asked.value.answers == (Answer("data.normal", ["line1", "line2"]),)
    assert str(asked.value).endswith(
        'If all pictures in line1, line2 show normal parts: data.normal = ["line1", "line2"]'
    )
    assert in_korean(str(asked.value)).endswith(
        'line1, line2의 사진이 모두 정상품이면: data.normal = ["line1", "line2"]'
    )
    assert "pairs(으)로 읽으면: " in in_korean(str(asked.value))
    with pytest.raises(DataError, match=r"no 'line3'"):
        recognise(root, ["line3"])


def test_a_split_is_not_taken_for_normal_parts(tmp_path: Path) -> None:
    """KolektorSDD2: every photograph has a mask x_GT.png, which is empty where the part is normal."""
    names = [f"{split}/{number}{end}.png" for split in ("train", "test") for number in range(4) for end in ("", "_GT")]
    with pytest.raises(DataError, match="it looks like no layout"):
        recognise(touch(tmp_path, *names))


def test_of_two_layouts_the_one_that_finds_more_masks(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "set",
        *(f"nut/{split}/good/{number}.png" for split in ("train", "test") for number in range(2)),
        *(f"nut/test/dent/{number}.png" for number in range(2)),
        *(f"nut/ground_truth/dent/{number}_mask.png" for number in range(2)),
    )
    found = recognise(root)
    assert found.data.layout == "mvtec" and found.others == ()
    assert "#   nut: 4 normal; dent 2" in found.toml()


def test_the_file_is_read_as_it_was_understood(tmp_path: Path) -> None:
    root = pairs(tmp_path / '사진 "A"', "good")
    answer = CliRunner().invoke(app, ["new", "--from", str(root)])
    assert answer.exit_code == 0, answer.output
    (tmp_path / "my.toml").write_text(answer.stdout, encoding="utf-8")
    config = load_config(tmp_path / "my.toml")
    assert config.data == recognise(root).data
    assert len(scan(config.data)) == 7
    assert len(answer.stdout.splitlines()) < 40, "a first file is one page"


@pytest.mark.parametrize("names", [("tile/train/good/0.png", "tile/train/good/1.png"), ("good/0.png", "good/1.png")])
def test_a_folder_without_any_defect_is_for_a_generator_that_needs_none(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = recognise(touch(tmp_path, *names))
    assert (found.data.layout, found.data.shots) == ("mvtec" if len(names[0]) > 12 else "pairs", 0)
    assert "There is no defect photograph" in found.toml()
    (tmp_path / "my.toml").write_text(found.toml(), encoding="utf-8")
    assert load_config(tmp_path / "my.toml").generator.name == "rendered"


def test_defects_without_masks_are_not_taken_for_a_folder_without_defects(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="defect has no mask"):
        recognise(touch(tmp_path, "good/0.png", "good/1.png", "crack/0.png"))
    with pytest.raises(DataError, match=r"1 pictures in no folder; put those of normal parts into a folder `good`"):
        recognise(touch(tmp_path / "flat", "0.png", "0.txt"))


def test_labelled_pictures_beside_others_are_understood_and_the_others_asked_about(tmp_path: Path) -> None:
    shape = '{"label": "rust", "points": [[1, 1], [3, 1], [3, 3]], "shape_type": "polygon"}'
    root = touch(tmp_path, "0.png", "1.png", "2.png")
    (root / "0.json").write_text(f'{{"version": "5", "shapes": [{shape}]}}', encoding="utf-8")
    with pytest.raises(DataError) as asked:
        recognise(root)
    assert str(asked.value) == (
        f"{root}: 2 pictures have no label file (1.png, 2.png). If they are normal parts: "
        f"`flawsmith new --from {root} --normal .`"
    )
    assert asked.value.answers == (Answer("data.normal", ["."]),)
    assert in_korean(str(asked.value)) == (
        f"{root}: 사진 2장에는 라벨 파일이 없습니다(1.png, 2.png). 그 사진이 정상품이면: "
        f"`flawsmith new --from {root} --normal .`"
    )
    with pytest.raises(DataError) as by_setting:  # in the studio, where a button writes it
        recognise(root, by=SETTING)
    assert str(by_setting.value).endswith('(1.png, 2.png). If they are normal parts, set data.normal = ["."]')
    assert in_korean(str(by_setting.value)).endswith('그 사진이 정상품이면 이렇게 설정하세요: data.normal = ["."]')
    found = recognise(root, ["."])
    assert (found.data.layout, found.data.normal, found.data.shots) == ("labelme", ["."], 10)
    assert "2 normal; rust 1" in found.toml()
    for number in (1, 2):
        (root / f"{number}.json").write_text('{"version": "5", "shapes": []}', encoding="utf-8")
    assert recognise(root).data.layout == "labelme"


def test_a_flat_folder_of_normal_parts_stays_as_it_is(tmp_path: Path) -> None:
    root = touch(tmp_path / "my parts", "0.png", "1.png")
    with pytest.raises(DataError) as asked:
        recognise(root)
    command = f"flawsmith new --from '{root}' --normal ."
    assert str(asked.value).startswith(
        f"{root}: 2 pictures in no folder (0.png, 1.png); put those of normal parts into"
    )
    assert str(asked.value).endswith(f"of its name. If these are normal parts: `{command}`")
    answer = CliRunner().invoke(app, shlex.split(command)[1:])
    (tmp_path / "my.toml").write_text(answer.stdout, encoding="utf-8")
    config = load_config(tmp_path / "my.toml")
    assert (config.data.layout, config.data.normal, config.data.shots) == ("pairs", ["."], 0)
    assert [example.defect for example in scan(config.data)] == [None, None]


def test_normal_parts_beside_folders_of_defects(tmp_path: Path) -> None:
    root = touch(pairs(tmp_path / "MT"), "0.bmp", "1.bmp")
    with pytest.raises(DataError, match=r"2 pictures in no folder \(0.bmp, 1.bmp\); .*--normal \.`$"):
        recognise(root)
    assert "#   MT: 2 normal; crack 2, dent 2" in recognise(root, ["."]).toml()


@pytest.mark.parametrize(("name", "text"), [("0.json", '{"shapes": ['), ("all.json", '{"images": 3')])
def test_what_a_label_file_may_mark_is_never_taken_for_normal(tmp_path: Path, name: str, text: str) -> None:
    root = touch(tmp_path, "0.png", "1.png")
    (root / name).write_text(text)
    for normal in ((), (".",)):
        with pytest.raises(DataError, match=f"{name}: is no JSON") as refused:
            recognise(root, normal)
        assert "as pairs" not in str(refused.value)


@pytest.mark.parametrize("name", ["flat", "./", "/photos/flat"])
def test_who_names_the_whole_folder_by_its_name_learns_how(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="holds no folder .*; call the whole folder '.'$"):
        recognise(touch(tmp_path / "flat", "0.png", "1.png"), [name])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "nowhere"], "nowhere: there is no such folder (looked in "),
        (["--from", "nowhere"], "; give --from the folder of your photographs"),
        (["--from", "/no/where"], "/no/where: there is no such folder; give --from the"),
        (["--from", "."], "no pictures there"),
        (["--from", ".", "--generator", "crop_paste"], "leave --generator and --paper out"),
        (["--normal", "good"], "--normal names folders of --from"),
    ],
)
def test_what_is_said_of_wrong_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["new", *options])
    assert answer.exit_code != 0 and said in str(answer.exception)


@pytest.mark.parametrize("normal", [(), ("ok",)])
def test_folders_of_mvtec_with_another_name_for_normal_parts(tmp_path: Path, normal: tuple[str, ...]) -> None:
    """As BTAD has them; `--normal ok` was not handed on to this layout."""
    for product in ("01", "02"):
        touch(tmp_path, *(f"{product}/{split}/ok/{number}.bmp" for split in ("train", "test") for number in range(3)))
        touch(tmp_path, f"{product}/test/ko/0.bmp", f"{product}/ground_truth/ko/0.png")
    found = recognise(tmp_path, normal)
    assert (found.data.layout, found.data.normal) == ("mvtec", ["ok"])
    assert {example.defect for example in found.survey.examples} == {None, "ko"} and 'normal = ["ok"]' in found.toml()
