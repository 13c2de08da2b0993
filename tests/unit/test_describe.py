"""A vision-language model says where damage is plausible: a small random LLaVA, and one that answers by a script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_prompted_shots import SIDE, root, run_of

import flawsmith as fs
from flawsmith.data import images
from flawsmith.errors import ConfigError, RunError
from flawsmith.nn.networks.describer import Describer
from flawsmith.synthesis.sentences import describe

__all__ = ["root"]
WORDS = "a small large faint severe scratch dent near the top left right bottom middle edge of photograph purple"


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of transformers' own class with random weights and twenty words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    marks = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {word: number for number, word in enumerate([*marks, *WORDS.split()])}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    heads = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**heads, num_hidden_layers=2, image_size=16, patch_size=8),
            text_config=LlamaConfig(**heads, vocab_size=len(vocabulary), num_hidden_layers=1, num_key_value_heads=2),
            image_token_index=4,
            image_seq_length=4,
            vision_feature_layer=-1,
        )
    )
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    folder = tmp_path_factory.mktemp("llava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class Scripted:
    """Answers by a script, and keeps the questions."""

    def __init__(self, of_normals: list[str], of_shots: list[str]) -> None:
        self.script = {True: of_normals, False: of_shots}
        self.questions: list[str] = []

    def answer(self, picture: np.ndarray, question: str) -> str:
        assert picture.dtype == np.float32 and picture.shape == (SIDE, SIDE, 3) and abs(picture).max() <= 1
        self.questions.append(question)
        answers = self.script["without defects" in question]
        return answers[len(self.questions) % len(answers)]


def describing(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"generate.describe": True, "generate.describer": str(folder), "backbone.dtype": "float32", **changes}


def test_a_random_model_answers_alike_each_time(llava: Path) -> None:
    describer = Describer.load(str(llava), device="cpu", dtype="float32")
    picture = np.random.default_rng(0).uniform(-1, 1, (40, 50, 3)).astype(np.float32)
    answer = describer.answer(picture, "where is a scratch near the top")
    assert answer and set(answer.split()) <= set(WORDS.split())
    assert answer == describer.answer(picture, "where is a scratch near the top")


def test_a_run_goes_on_where_nothing_is_understood(
    root: Path, tmp_path: Path, llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The random model says nonsense of all photographs: why is kept, and the plan is that without it."""
    monkeypatch.setattr(describe, "_NORMALS", 1)
    run = run_of(root, tmp_path / "described", "", **describing(llava))
    plain = run_of(root, tmp_path / "plain", "")
    for one in (run, plain):
        fs.train(one)
        fs.generate(one)
    rows = json.loads(run.path("descriptions.json").read_text())["rows"]
    assert [row["caption"] for row in rows] == [False, True, True]
    assert all(row["sentence"] == "" and row["reason"] and len(row["answers"]) == 3 for row in rows)
    assert run.plan() == plain.plan()


def test_what_is_understood_decides_the_samples(
    root: Path,
    tmp_path: Path,
    llava: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Scripted(["A purple scratch.", '"a small scratch near the bottom right."'], ["a faint scratch, top left"])
    monkeypatch.setattr(describe, "load_describer", lambda config: script)
    run = run_of(root, tmp_path, "", **describing(llava))
    fs.train(run)
    fs.generate(run)
    rows = json.loads(run.path("descriptions.json").read_text())["rows"]
    assert {row["sentence"] for row in rows} == {"a small scratch near the bottom right", "a faint scratch, top left"}
    assert "hole" in script.questions[0] and "scratch" in script.questions[0], "places and types are named"
    assert any("not understood: unknown: purple" in question for question in script.questions)
    for line, row in zip(run.plan(), run.samples(), strict=True):
        assert (line.sentence, line.appearance) == ("a small scratch near the bottom right", "small")
        ys, xs = np.nonzero(images.read_mask(run.path(row.mask), (SIDE, SIDE)))
        assert ys.mean() > SIDE / 2 and xs.mean() > SIDE / 2 and max(np.ptp(xs), np.ptp(ys)) < 0.2 * SIDE
    asked, path = len(script.questions), run.path("descriptions.json")
    again = fs.Run.open(run.folder)
    fs.generate(again)
    assert len(script.questions) == asked and again.plan() == run.plan(), "what was said is not asked again"
    path.write_text(path.read_text().replace("near the bottom right", "near the top left"))
    fs.generate(again)
    assert {line.sentence for line in again.plan()} == {"a small scratch near the top left"}, "somebody knew better"
    path.write_text(path.read_text().replace("near the top left", "near the moon"))
    with pytest.raises(RunError, match="descriptions.json: plate.*: unknown: moon"):
        fs.generate(again)
    assert len(script.questions) == asked


def test_a_stopped_run_asks_only_what_is_left(
    root: Path,
    tmp_path: Path,
    llava: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after four photographs: the other three are asked about; captions alone say how the shots look."""
    script = Scripted(["no idea"], ["a large scratch"])
    monkeypatch.setattr(describe, "load_describer", lambda config: script)
    run = run_of(root, tmp_path, "", **describing(llava))
    fs.train(run)
    fs.generate(run)
    whole = run.path("descriptions.json").read_text()
    assert {line.appearance for line in run.plan()} == {"large"} and {line.sentence for line in run.plan()} == {""}
    stored = json.loads(whole)
    run.path("descriptions.json").write_text(json.dumps({**stored, "rows": stored["rows"][:4]}))
    script.questions.clear()
    fs.generate(fs.Run.open(run.folder))
    assert len(script.questions) == 3 + 2, "a normal part three times, for it is not understood, and two shots"
    assert json.loads(run.path("descriptions.json").read_text()) == stored


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "clip_text_model"}', '{"model_type": "none such"}'])
def test_no_model_is_said(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        ConfigError, match="generate.describer: .* (is no transformers folder|holds no image-text)"
    ) as one:
        Describer.load(str(tmp_path), device="cpu")
    assert "\n" not in str(one.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"generate.describe": True}, "describe needs describer"),
        ({"generate.describe": True, "generate.describer": "x", "generate.prompt": "a crack"}, "prompt says already"),
    ],
)
def test_settings_that_exclude_each_other(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as one:
        fs.load_config(None, settings)
    assert "{" not in str(one.value), "the section does not follow"
