"""recipes/backbone.py: the recipe of the built-in backbone, very small: trained, read back, killed and gone on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from flawsmith.config import load_config, validate
from flawsmith.data.tensors import image_tensor
from flawsmith.errors import BackboneError, ConfigError, RunError
from flawsmith.nn import builtin
from flawsmith.nn.backbone import Backbone
from flawsmith.recipes import backbone as stage
from flawsmith.recipes.backbone import Recipe, make_backbone, train_backbone
from flawsmith.recipes.backbone_data import (
    FactoryMaterial,
    Source,
    UserMaterial,
    crops,
    prompt,
    user_sources,
    windows_of,
)

SMALL = Recipe(
    pictures=6,
    picture_size=96,
    autoencoder_steps=3,
    autoencoder_batch=2,
    crop=32,
    views=8,
    turns=2,
    steps=3,
    batch=2,
    widths=(32, 64),
    autoencoder_width=32,
    window=64,
    workers=1,
    save_every=1,
)


def material(seed: int = 0, count: int = SMALL.pictures, pool: Any = None) -> FactoryMaterial:
    return FactoryMaterial(count, SMALL.picture_size, seed, pool)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the backbone itself; OUT/state and the losses' times are no part of it."""
    parts = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for n in parts for p in sorted((folder / n).rglob("*.*"))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Backbone]:
    out = tmp_path_factory.mktemp("recipe") / "out"
    torch.set_num_threads(1)
    return out, make_backbone(out, SMALL)


# ---- what comes out -----------------------------------------------------------------------------


def test_it_is_a_backbone_that_can_be_loaded(trained):
    out, made = trained
    again = Backbone.load(out, device="cpu", dtype="float32")
    assert again.fingerprint == made.fingerprint
    assert (again.size, again.factor, again.latent_channels, again.inpaints) == (64, 8, 16, True)
    assert again.unet.config.block_out_channels == (32, 64) or list(again.unet.config.block_out_channels) == [32, 64]
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    latent, mask = again.encode(image), torch.ones(1, 1, 8, 8)
    said = again.predict(latent, torch.tensor([500]), again.embed([prompt("crack")]), mask=mask, masked=latent)
    assert said.isfinite().all() and said.any() and again.decode(said).shape == image.shape


def test_diffusers_and_transformers_load_it_themselves(trained):
    place, options = str(trained[0]), {"local_files_only": True}
    vae = AutoencoderDC.from_pretrained(place, subfolder="vae", **options)
    unet = UNet2DConditionModel.from_pretrained(place, subfolder="unet", **options)
    text_encoder = CLIPTextModel.from_pretrained(place, subfolder="text_encoder", **options)
    tokens = CLIPTokenizer.from_pretrained(place, subfolder="tokenizer", **options)
    scheduler = DDIMScheduler.from_pretrained(place, subfolder="scheduler", **options)
    assert unet.config.in_channels == 33 and vae.config.latent_channels == 16
    assert vae.config.scaling_factor != 1 and 0.01 < vae.config.scaling_factor < 100
    assert text_encoder.config.vocab_size == len(tokens) and scheduler.config.prediction_type == "v_prediction"
    assert not [p for p in trained[0].rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".part")]


def test_its_latents_are_of_about_unit_variance(trained):
    back = Backbone.load(trained[0], device="cpu", dtype="float32")
    images = image_tensor(np.stack([source.damaged for source in material().pictures()]))
    assert 0.3 < float(back.encode(images).std()) < 3


def test_the_losses_are_kept(trained):
    rows = [json.loads(line) for line in (trained[0] / "training.jsonl").read_text().splitlines()]
    assert [(r["half"], r["step"]) for r in rows] == [(h, i) for h in ("autoencoder", "unet") for i in range(3)]
    told = json.loads((trained[0] / "state" / "unet.json").read_text())
    assert told["losses"] == [r["loss"] for r in rows[3:]] and all(np.isfinite(told["losses"]))


def test_called_again_it_trains_nothing_and_gives_the_same(trained, monkeypatch):
    out, _ = trained
    before = contents(out)
    for loss in ("_autoencoder_loss", "_inpainting_loss"):
        monkeypatch.setattr(stage, loss, lambda *a: pytest.fail("trained again"))
    make_backbone(out, SMALL)
    assert contents(out) == before


# ---- killed and gone on -------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("half, at", [("autoencoder", 2), ("unet", 2)])
def test_killed_in_the_middle_it_ends_the_same(trained, tmp_path, monkeypatch, half, at):
    @contextmanager
    def deadly(name: str, total: int, unit: str, done: int = 0) -> Iterator[Any]:
        state = {"done": done}

        def advance(count: int = 1, note: str = "") -> None:
            state["done"] += count
            if name == half and state["done"] == at:
                raise Killed

        yield advance

    out = tmp_path / "out"
    monkeypatch.setattr(stage, "progress", deadly)
    with pytest.raises(Killed):
        make_backbone(out, SMALL)
    assert not (out / "unet").exists()
    monkeypatch.undo()
    torch.manual_seed(99)
    again = make_backbone(out, SMALL)
    assert again.fingerprint == trained[1].fingerprint
    assert contents(out) == contents(trained[0])


def test_another_recipe_in_the_same_folder_begins_anew(trained, tmp_path):
    out = tmp_path / "out"
    (out / "state").mkdir(parents=True)
    for file in (trained[0] / "state").glob("*.safetensors"):
        (out / "state" / file.name).write_bytes(file.read_bytes())
    steps: list[tuple[str, int]] = []
    recipe = SMALL.model_copy(update={"seed": 1, "pictures": 4, "autoencoder_steps": 1, "steps": 1, "turns": 1})
    stage.train_backbone(out, recipe, material(1, 4), lambda name, done, *_: steps.append((name, done)))
    assert [s for s in steps if not s[0].startswith("encode")] == [("autoencoder", 1), ("unet", 1)]


def test_each_turns_windows_join_those_before_also_when_it_goes_on_late(trained):
    back = Backbone.load(trained[0], device="cpu", dtype="float32")
    turns = stage._Turns(back, SMALL, material(), None)
    first, both = dict(turns.at(0)), turns.at(SMALL.steps - 1)
    assert len(first["latent"]) == SMALL.views and len(both["latent"]) == SMALL.turns * SMALL.views
    late = stage._Turns(back, SMALL, material(), None).at(SMALL.steps - 1)
    for name in ("latent", "masked", "mask", "tokens"):
        assert torch.equal(both[name][: SMALL.views], first[name]) and torch.equal(late[name], both[name])
    assert not torch.equal(both["latent"][: SMALL.views], both["latent"][SMALL.views :])


# ---- going on from a backbone -------------------------------------------------------------------


def test_it_goes_on_from_a_backbone_whose_autoencoder_and_words_stay(trained, tmp_path):
    begun, out = trained[1], tmp_path / "on"
    recipe = SMALL.model_copy(update={"start": str(trained[0]), "seed": 1, "learning_rate": 1e-5, "widths": (64, 64)})
    names: list[str] = []
    made = stage.train_backbone(out, recipe, material(1), lambda name, *_: names.append(name))
    assert "autoencoder" not in names and "unet" in names
    then, now = contents(trained[0]), contents(out)
    assert then.keys() == now.keys() and str(trained[0]).encode() not in b"".join(now.values())
    changed = {name for name in now if name.endswith(".safetensors") and now[name] != then[name]}
    assert changed == {"unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"}
    assert made.text_encoder.tokenizers[0].get_vocab() == begun.text_encoder.tokenizers[0].get_vocab()
    for name, value in made.unet.state_dict().items():
        # A rate of 1e-5 moves no weight far in three steps; a fresh start would be somewhere else.
        torch.testing.assert_close(value.float(), begun.unet.state_dict()[name].float(), rtol=0.02, atol=2e-3)


def test_what_cannot_be_gone_on_from_is_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"window: 96 px, .* made for 64; set window to that"):
        make_backbone(tmp_path / "a", SMALL.model_copy(update={"start": str(trained[0]), "window": 96}))
    with pytest.raises(BackboneError, match="nowhere.*no such folder"):
        make_backbone(tmp_path / "b", SMALL.model_copy(update={"start": str(tmp_path / "nowhere")}))
    assert not list(tmp_path.iterdir()), "nothing is left behind"


# ---- what is refused ----------------------------------------------------------------------------


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not empty and not a backbone in training"):
        make_backbone(tmp_path, SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(RunError, match="name another folder"):
        make_backbone(tmp_path / "thesis.txt", SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_window_that_the_unet_cannot_halve_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="window: 72 .*multiple of 32"):
        make_backbone(tmp_path / "out", SMALL.model_copy(update={"window": 72}))
    assert not (tmp_path / "out").exists()


def test_recipes_are_strict_and_explained():
    with pytest.raises(ConfigError, match="step: unknown key; did you mean 'steps'"):
        validate(Recipe, {"step": 3})
    with pytest.raises(ConfigError, match="views: .*greater than or equal to 8"):
        validate(Recipe, {"views": 1})
    assert all(field.description for field in Recipe.model_fields.values())
    assert Recipe().widths == (128, 192, 256) and Recipe().window == builtin.WINDOW


# ---- the pictures -------------------------------------------------------------------------------


def test_factory_pictures_follow_from_the_seed():
    sources, again = material().pictures(), material().pictures()
    assert len(sources) == SMALL.pictures and any(s.mask.any() for s in sources)
    for a, b in zip(sources, again, strict=True):
        assert np.array_equal(a.damaged, b.damaged) and np.array_equal(a.mask, b.mask) and a.caption == b.caption
        assert a.damaged.shape == (96, 96, 3) and a.damaged.dtype == np.uint8 and a.mask.dtype == bool
    other = material(1).pictures()
    assert not all(np.array_equal(a.damaged, b.damaged) for a, b in zip(sources, other, strict=True))


def test_each_turn_has_windows_of_its_own_and_the_same_on_any_number_of_processes():
    with ThreadPoolExecutor(2) as pool:
        beside = material(pool=pool)
        beside.ahead(1, 8, 64)
        made = [list(one.windows(turn, 8, 64)) for one in (material(), beside) for turn in (0, 1)]
    for alone, pooled in ((made[0], made[2]), (made[1], made[3])):
        assert sum(len(part.image) for part in alone) == 8
        for a, b in zip(alone, pooled, strict=True):
            assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask) and a.captions == b.captions
    assert not np.array_equal(made[0][0].image, made[1][0].image)


def test_windows_show_damage_under_its_mask_whole_windows_and_sound_under_borrowed_masks():
    sources = FactoryMaterial(30, 96, 5).pictures()
    seen = windows_of(sources, 200, 64, (3,))
    assert seen.image.shape == (200, 64, 64, 3) and seen.image.dtype == np.uint8 and seen.mask.dtype == bool
    share = seen.mask.mean((1, 2))
    normal = np.array([" sound " in words for words in seen.captions])
    assert seen.mask.any((1, 2)).all() and 0.15 < normal.mean() < 0.35 and 0.03 < (share == 1).mean() < 0.2
    assert not (share[normal] == 1).any()


def test_crops_have_any_tone_and_some_are_grey():
    seen = crops(material().pictures(), 32, 40, (1, 2))
    assert seen.shape == (40, 3, 32, 32) and -1 <= float(seen.min()) and float(seen.max()) <= 1
    grey = (seen.amax(1) - seen.amin(1)).flatten(1).amax(1) < 1e-6
    assert 0 < int(grey.sum()) < 40
    assert torch.equal(seen, crops(material().pictures(), 32, 40, (1, 2)))


def test_the_users_own_pictures_teach_too(trained, factory_root, tmp_path):
    config = load_config(None, {"data.root": str(factory_root), "data.shots": 2, "data.products": ["magnet"]})
    sources = user_sources(config)
    assert {s.defect for s in sources} == {"crack", "chip", None} and {s.product for s in sources} == {"magnet"}
    assert sum(s.defect == "crack" for s in sources) == 2
    for source in sources:
        assert source.damaged.dtype == np.uint8 and source.damaged.shape == (128, 128, 3)
        assert (source.normal is None) == (source.defect is not None) and source.part.any()
        assert source.mask.any() == (source.defect is not None)
    turns = [list(UserMaterial(sources, 0).windows(turn, 4, 64))[0].image for turn in (0, 1)]
    assert not np.array_equal(*turns)
    short = SMALL.model_copy(update={"autoencoder_steps": 1, "steps": 1, "turns": 1})
    made = make_backbone(tmp_path / "own", short, config)
    assert made.size == 64 and made.fingerprint != trained[1].fingerprint
    kept = CLIPTokenizer.from_pretrained(tmp_path / "own" / "tokenizer", local_files_only=True)
    assert len(kept("crack magnet").input_ids) == 4  # its words are one token each


# ---- the words ----------------------------------------------------------------------------------


def test_prompts():
    assert prompt("broken_tooth") == "a photo of a broken tooth"
    assert prompt("scratch", "metal_nut") == "a photo of a scratch on metal nut"
    assert prompt(None) == "a photo of sound surface" and prompt(None, "metal_nut") == "a photo of sound metal nut"


def test_the_tokenizer_is_the_same_every_time():
    # A resumed training must find its words under the numbers it learned them by.
    corpus = ["a photo of a scratch on steel", "Crack, hole (dent) 12", "größe"]
    first = builtin.tokenizer(corpus)
    for _ in range(5):
        again = builtin.tokenizer(iter(corpus))
        assert again.get_vocab() == first.get_vocab()
    assert sorted(first.get_vocab().values()) == list(range(len(first)))
    assert len(first("crack hole").input_ids) == 4
    letters = first("zzz").input_ids[1:-1]
    assert len(letters) == 3 and first.unk_token_id not in letters


def test_other_photographs_in_the_same_folder_are_learned_anew(tmp_path):
    def shown(level: int) -> UserMaterial:
        rng, sources = np.random.default_rng(level), []
        for _ in range(4):
            image, mask = rng.integers(level, level + 100, (96, 96, 3), dtype=np.uint8), np.zeros((96, 96), bool)
            mask[30:60, 30:60] = True
            sources.append(Source(image, None, mask, np.ones_like(mask), "tile", "crack", prompt("crack", "tile")))
        return UserMaterial(sources, 0)

    short = SMALL.model_copy(update={"autoencoder_steps": 1, "steps": 1, "turns": 1, "views": 8})
    first, again, other = (train_backbone(tmp_path, short, shown(level)).fingerprint for level in (0, 0, 90))
    assert first == again != other
    mask_alone = shown(0)
    mask_alone._sources[0].mask[0, 0] = True
    assert shown(0).identity == shown(0).identity != mask_alone.identity != shown(90).identity
    assert material().identity == "", "the recipe says all of the factory's"
