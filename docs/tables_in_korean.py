"""The Korean of the tables that docs/write_tables.py writes: its words are here, every figure is the English table's.

A phrase is a cell of a table or a paragraph with {} for what Korean takes over as it is: figures, names of results and
code. So a figure of a Korean page cannot differ from the English one. A cell that is no phrase is one of several
between commas.
"""
# ruff: noqa: E501

from __future__ import annotations

import re

KEPT = re.compile(r"`[^`]*`|\w+\.json|(?<![\w.])[-+]?\d+(?:\.\d+)?")
"""What a phrase has {} for."""

PHRASES = {
    "### What each needs": "### 방법마다 필요한 것",
    "shots": "샷",
    "target mask": "그릴 자리의 마스크",
    "backbone": "백본",
    "training": "학습",
    "seconds a sample": "샘플당 시간(초)",
    "memory, GB": "메모리(GB)",
    "use it when": "이럴 때 쓰세요",
    "needed": "필요함",
    "not needed": "필요 없음",
    "asked for": "필요함",
    "not asked for": "필요 없음",
    "no": "없음",
    "yes": "있음",
    "none": "없음",
    "a student": "학생 모델",
    "a large one": "큰 것",
    "{} min": "{}분",
    "{} and {} min": "{}분과 {}분",
    "{} steps": "{}단계",
    "{} to train": "학습에 {}",
    "{} with {}": "{1}이면 {0}",
    "{} to paint (f)": "그릴 때 {} (f)",
    **{f"{{}} ({letter})": f"{{}} ({letter})" for letter in "abcdefg"},
    **{f"{{}} and {{}} ({letter})": f"{{}}, {{}} ({letter})" for letter in "abcdefg"},
    "the default: some shots, nothing to train": "기본값: 샷이 조금 있을 때. 학습이 없습니다",
    "one shot is enough; what every other one must beat": "샷 하나로 충분합니다. 다른 모든 방법의 비교 기준입니다",
    "shots of textures that vary; a diffusion model that is told mask and type": "질감이 다양한 샷이 있을 때. 마스크와 유형을 아는 확산 모델입니다",
    "a photograph shows the look, also one of another product": "사진으로 모습을 보여 줄 때. 다른 제품의 사진도 됩니다",
    "look from a photograph and place from a mask, with a large backbone": "큰 백본에서 모습은 사진으로, 위치는 마스크로 정할 때",
    "the place of new damage is not given: it draws the sample's mask itself (shots still need masks)": "새 결함의 자리를 정해 주지 않을 때: 샘플의 마스크를 스스로 그립니다(샷에는 마스크가 있어야 합니다)",
    "to compare with the papers; it trains words, and little else": "논문과 비교할 때. 거의 단어만 학습합니다",
    "many samples of a trained {}, quickly": "학습된 {}의 샘플을 빠르게 많이 만들 때",
    "no shot at all, and the damage can be named": "샷이 하나도 없고 결함을 이름으로 말할 수 있을 때",
    "no shot; to train a detector as its paper does": "샷이 없고, 검출기를 그 논문처럼 학습시킬 때",
    "no shot; several normal parts of one texture": "샷이 없고, 질감이 같은 정상품이 여러 개일 때",
    "no shot; to train a detector as DRAEM does": "샷이 없고, 검출기를 DRAEM처럼 학습시킬 때",
    "parts that are missing, doubled, turned or moved": "부품이 빠지거나, 하나 더 있거나, 돌아가거나, 옮겨진 결함",
    "no shot, but a large backbone and a word for the damage": "샷은 없지만 큰 백본과 결함을 가리키는 말이 있을 때",
    "– no run on the sets": "– 이 데이터로 실행한 것이 없음",
    "– not measured": "– 재지 않음",
    "– not run": "– 실행하지 않음",
    "### What each is worth": "### 방법마다의 효과",
    "judge, backbone, N": "판정한 검출기, 백본, 수",
    "tiles: pixel AP": "타일: 픽셀 AP",
    "tiles: image AUROC": "타일: 이미지 AUROC",
    "screws: pixel AP": "나사: 픽셀 AP",
    "screws: image AUROC": "나사: 이미지 AUROC",
    "copies of a shot": "샷을 베낀 비율",
    "{}": "{}",
    "{} at {} of its training": "학습을 {1}만 한 {0}",
    "no backbone": "백본 없음",
    "version {}": "버전 {}",
    "version {} and version {}": "버전 {}과 버전 {}",
    "{} samples": "샘플 {}개",
    "{} and {} samples": "샘플 {}개와 {}개",
    "{} test pictures": "시험 사진 {}장",
    "{} and {} test pictures": "시험 사진 {}장과 {}장",
    "{} seeds ({})": "시드 {}개({})",
    "{} and {} seeds ({})": "시드 {}개와 {}개({})",
    **{
        f"{{}} ({{}} [{{}}, {{}}]): {english}{star}": f"{{}} ({{}} [{{}}, {{}}]): {korean}{star}"
        for english, korean in {"helps": "도움됨", "no effect": "효과 없음", "harms": "해로움"}.items()
        for star in ("", "*")
    },
    "tiles {} %": "타일 {} %",
    "screws {} %": "나사 {} %",
    "tiles {} % (started from noise)": "타일 {} %(잡음에서 시작)",
    "screws {} % (started from noise)": "나사 {} %(잡음에서 시작)",
    "– the two that it is made of are judged": "– 이것을 이루는 두 방법을 따로 판정함",
    "– its proof is not there yet": "– 효과 검증이 아직 없음",
    "– {} is not there yet": "– {}이 아직 없음",
    "– no student was trained on the sets yet": "– 이 데이터로 학습한 학생 모델이 아직 없음",
    "– it repeats no shot": "– 샷을 베끼지 않음",
    "– not run beside ten shots; alone: below": "– 샷 열 장에 더해 보지 않음. 단독 결과는 아래에",
    "– neither set shows parts that are missing or misplaced": "– 두 데이터 모두 부품이 빠지거나 잘못 놓인 사진이 없음",
    "– it asks for a larger backbone than the built-in one": "– 내장 백본보다 큰 백본이 필요함",
    "### Without a shot, and beside one and three": '<a id="without-a-shot-and-beside-one-and-three"></a>\n### 샷이 없을 때와 샷 한 장, 세 장에 더했을 때',
    "shots of each type": "유형별 샷",
    (
        "Training by the clock on two cores, other work beside, with the built-in backbone ({}). Seconds with one letter can be compared, others not: (a) processor seconds on the tiles, one thread, diffusion from noise in {} steps ({}); (b) processor seconds on tiles and screws ({}); (c) by the clock on two cores, other work beside ({}); (d) by the clock, {} steps ({}); (e) processor seconds of a whole run, checks too, on pieces of {} px and less, {} steps ({}). Memory: (f) GiB on a card at Stable Diffusion {}'s size, {} px, {} windows a step ({}); (g) of the whole process, colour photographs of {} px ({})."
    ): (
        "학습 시간은 다른 작업을 함께 하는 코어 두 개에서 내장 백본으로 잰 실제 시간입니다({}). 샘플당 시간은 같은 글자끼리만 비교할 수 있습니다. (a) 타일에서\n"
        "잰 프로세서 시간, 스레드 하나, 확산 모델은 잡음에서 {}단계({}). (b) 타일과 나사에서 잰 프로세서 시간({}). (c) 다른 작업을 함께 하는 코어 두 개에서\n"
        "잰 실제 시간({}). (d) 실제 시간, {}단계({}). (e) 확인까지 포함한 실행 전체의 프로세서 시간, {}px 이하의 조각, {}단계({}). 메모리: (f) Stable\n"
        "Diffusion {} 크기, {}px, 한 단계에 윈도 {}개일 때 GPU의 GiB({}). (g) {}px 컬러 사진에서 프로세스 전체({})."
    ),
    (
        "Clean protocol, {} shots of each of five types, EfficientNet-Lite0; the mean over defect types in points. In brackets the difference to the same shots alone *in the same run*, with its {} % interval: compare these, not the figures of two runs. A star: the verdict is of this comparison alone, not corrected for how many there are. Judged by today's {}, but for {}, where heads and memory counted alike. Last column: the share of samples that repeat a shot; of real test defects {} % and {} % do."
    ): (
        "clean 프로토콜, 다섯 유형마다 샷 {}장, EfficientNet-Lite0. 결함 유형 평균을 백 점 만점으로 나타냈습니다. 괄호 안은 *같은 실행에서* 같은 샷만 썼을\n"
        "때와의 차이와 {} % 신뢰 구간입니다. 서로 다른 실행의 점수를 비교하지 말고 이 차이를 비교하세요. 별표는 그 비교 하나만의 판정으로, 비교 횟수를 감안해\n"
        "보정하지 않은 것입니다. 지금의 {}가 판정했습니다. 다만 {}에서는 헤드와 기억을\n"
        "같은 비중으로 썼습니다. 마지막 열은 샷을 베낀 샘플의 비율입니다.\n"
        "실제 시험 결함에서는 이 비율이 {} %와 {} %입니다."
    ),
    (
        "From {}. With {} shots the difference is to {}, which learns from normal parts alone; else to the same shots alone. The test set is that of ten shots."
    ): (
        "{}에서 가져왔습니다. 샷이 {}장인 줄은 정상품만 배우는 {}와의 차이이고, 나머지는 같은 샷만 썼을 때와의 차이입니다. 시험 사진은 샷 열 장일 때와\n"
        "같습니다."
    ),
}
"""English -> Korean."""


def in_korean(text: str) -> str:
    """Return headings, tables and paragraphs, parted by empty lines, in Korean.

    Raises:
        SystemExit: a phrase has no Korean.
    """
    return "\n\n".join(
        "\n".join(" | ".join(_cell(cell) for cell in line.split(" | ")) for line in part.split("\n"))
        if part.startswith("|")
        else _said(" ".join(part.split("\n")))
        for part in text.split("\n\n")
    )


def _cell(cell: str) -> str:
    """Return a cell of a table in Korean, with the bars at the ends of its line."""
    words = cell.strip("| ")
    if KEPT.sub("{}", words) in PHRASES or ", " not in words:
        return cell.replace(words, _said(words))
    return cell.replace(words, ", ".join(map(_said, words.split(", "))))


def _said(phrase: str) -> str:
    if not re.search("[a-z]", KEPT.sub("", phrase)):
        return phrase
    english = KEPT.sub("{}", phrase)
    if english not in PHRASES:
        raise SystemExit(f"docs/tables_in_korean.py: PHRASES lacks the Korean of {english!r}")
    return PHRASES[english].format(*KEPT.findall(phrase))
