"""The checks of filters: `check_filter(MyFilter)` asks it about small screening sets with made-up features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.interfaces import Filter
from flawsmith.testing.settings import settings_hold
from flawsmith.types import ScreeningSet

FilterCheck = Callable[[type[Filter]], None]
_DEFECTS = ("bar", "disc")
_SIDE = 48


def example_screening_set(count: int = 16, *, seed: int = 0, damaged: bool = True, own: bool = True) -> ScreeningSet:
    """Return windows of a grainy surface with dark discs and bars in turns, described by plain averages.

    Args:
        count: Pictures.
        seed: Other seeds give other pictures of the same surface.
        damaged: False: the same masks, with nothing painted.
        own: True: the normal photograph beneath is each picture's own; False: a stand-in, as for real shots.
    """
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(float(_SIDE)), torch.arange(float(_SIDE)), indexing="ij")
    # Slow shading of another phase on each picture: no two are alike.
    phase = 6 * torch.rand(count, 2, 1, 1, generator=rng)
    shade = 0.2 * torch.sin(x / 9 + phase[:, 0]) * torch.cos(y / 11 + phase[:, 1])
    below = (shade[:, None] + 0.03 * torch.randn(count, 1, _SIDE, _SIDE, generator=rng)).expand(-1, 3, -1, -1)
    centres = torch.randint(16, 32, (count, 2, 1, 1), generator=rng)
    away = y - centres[:, 0], x - centres[:, 1]
    disc = away[0].square() + away[1].square() < 64
    bar = (away[0].abs() < 3) & (away[1].abs() < 13)
    defect = tuple(_DEFECTS[place % 2] for place in range(count))
    mask = torch.where((torch.arange(count) % 2 == 1)[:, None, None], disc, bar)
    depth = torch.tensor([0.5, 0.8])[torch.arange(count) % 2] + 0.1 * torch.rand(count, generator=rng)
    image = below - mask[:, None] * depth[:, None, None, None] if damaged else below
    return described(image.clamp(-1, 1).contiguous(), mask, below.contiguous(), defect, own=own)


def described(image: Tensor, mask: Tensor, below: Tensor, defect: tuple[str, ...], *, own: bool = True) -> ScreeningSet:
    """Return a screening set of windows (N,3,S,S), masks bool (N,S,S) and normal windows; the features are made up."""
    count = len(image)
    one, other = (_features(part, mask) for part in (image, below))
    changed = (image - below).abs().amax(1) > 0.048
    return ScreeningSet(
        tuple(f"{place:06d}" for place in range(count)),
        defect,
        image,
        mask,
        below,
        changed if own else torch.zeros_like(mask),
        torch.full((count,), own),
        torch.ones(count, dtype=torch.bool),
        one,
        other,
        (one["tokens"] - other["tokens"]).square().sum(1),
        torch.tensor([float(picture.mean(0)[inside].std()) for picture, inside in zip(image, mask, strict=True)]),
        "tiny",
    )


def _features(image: Tensor, mask: Tensor) -> dict[str, Tensor]:
    area = mask.sum((1, 2)).clamp_min(1)[:, None]
    inside = [(image * mask[:, None]).sum((2, 3)) / area, mask.flatten(1).sum(1, keepdim=True) / 400]
    spread = [mask.any(dim=side).sum(1, keepdim=True) / _SIDE for side in (1, 2)]
    tokens = torch.cat([*inside, *spread, torch.ones(len(image), 1)], dim=1)
    pooled = {"whole": F.avg_pool2d(image, _SIDE // 4), "window": F.avg_pool2d(image, _SIDE // 6)}
    return {**{name: value.flatten(1) + 1 for name, value in pooled.items()}, "tokens": tokens}


def filter_settings_round_trip(plugin: type[Filter]) -> None:
    """Settings have a default and a line of help for every field, are frozen, and survive JSON."""
    settings_hold(plugin.__name__, plugin.Settings)


def scores_are_named_and_shaped(plugin: type[Filter]) -> None:
    """`fit` and `score` return the very names that are declared, each with a reason: float32 (N,), finite or NaN."""
    made, shots = example_screening_set(9, seed=1), example_screening_set(16, own=False)
    found, left_out, _ = _fitted(plugin, made)
    assert plugin.scores and all(plugin.scores.values()), "every score needs a few words that say what is wrong"
    for told, judged in ((found, made), (left_out, shots)):
        assert set(told) == set(plugin.scores), f"it scores {sorted(told)}, and declares {sorted(plugin.scores)}"
        for name, values in told.items():
            shape = tuple(values.shape)
            assert values.dtype == torch.float32 and shape == (len(judged),), f"{name}: {values.dtype} {shape}"
            assert not values.isinf().any(), f"{name} is infinite"
    assert any(bool(values.isfinite().any()) for values in found.values()), "it tells nothing of any picture"


def same_pictures_same_scores(plugin: type[Filter]) -> None:
    """The same bytes again, and the pictures are left as they were."""
    made = example_screening_set(9, seed=1)
    before = {name: made.vector[name].clone() for name in made.vector} | {"image": made.image.clone()}
    first, _, member = _fitted(plugin, made)
    again = member.score(made)
    fresh, _, _ = _fitted(plugin, made)
    for name, values in first.items():
        assert _same(values, again[name]), f"{name}: other scores for the same pictures"
        assert _same(values, fresh[name]), f"{name}: fitted again, it scores otherwise"
    assert torch.equal(made.image, before.pop("image")), "it changed the pictures"
    assert all(torch.equal(made.vector[name], value) for name, value in before.items()), "it changed the features"


def a_saved_gate_judges_alike(plugin: type[Filter]) -> None:
    """`restore` of `state` in a fresh filter gives the same bytes, and the state is tensors alone."""
    made = example_screening_set(9, seed=1)
    found, _, member = _fitted(plugin, made)
    state = member.state()
    assert all(isinstance(value, Tensor) for value in state.values()), "the state holds something else than tensors"
    other = plugin(plugin.Settings(), _DEFECTS)
    other.restore({name: value.clone() for name, value in state.items()})
    for name, values in other.score(made).items():
        assert _same(values, found[name]), f"{name}: restored, it scores otherwise"
    assert other.said() == member.said(), f"restored, it says {other.said()!r}, not {member.said()!r}"


def neighbours_do_not_matter(plugin: type[Filter]) -> None:
    """The pictures behind a picture in the set change nothing of its scores."""
    made = example_screening_set(9, seed=1)
    found, _, member = _fitted(plugin, made)
    fewer = member.score(made.rows(range(5)))
    for name, values in fewer.items():
        assert torch.allclose(values, found[name][:5], atol=1e-5, equal_nan=True), f"{name} depends on what comes later"


def what_is_unknown_is_abstained_from(plugin: type[Filter]) -> None:
    """Without normal photograph, with few shots, no normal parts or no picture: NaN or a number, never an error."""
    made = example_screening_set(5, seed=1)
    nothing = {name: torch.full_like(value, torch.nan) for name, value in made.beneath.items()}
    no, none = torch.zeros(5, dtype=torch.bool), torch.zeros_like(made.below)
    changed, moved = torch.zeros_like(made.changed), made.moved * torch.nan
    bare = replace(made, own=no, compared=no, below=none, beneath=nothing, changed=changed, moved=moved)
    every, normals = example_screening_set(16, own=False), example_screening_set(6, seed=3, damaged=False)
    for shots in (2, 16):
        for normal in (0, 6):
            member = plugin(plugin.Settings(), _DEFECTS)
            member.fit(every.rows(range(shots)), normals.rows(range(normal)))
            for judged in (bare, made, made.rows([])):
                for name, values in member.score(judged).items():
                    assert values.shape == (len(judged),) and not values.isinf().any(), name
            said = member.said()
            assert isinstance(said, str) and "\n" not in said


def what_is_wrong_scores_lower(plugin: type[Filter]) -> None:
    """Fresh damage of the same make has a higher median score than at least one kind of what must not pass."""
    good, shots = example_screening_set(16, seed=5), example_screening_set(16, own=False)
    member = plugin(plugin.Settings(), _DEFECTS)
    member.fit(shots, example_screening_set(12, seed=3, damaged=False))
    told = _middles(member, good)
    found = []
    for name, judged in {**_wrong(good), "copies of shots": shots}.items():
        worse = _middles(member, judged)
        found += [name for score, middle in told.items() if score in worse and worse[score] < middle]
    assert found, (
        "nothing painted, noise, a shifted label, a copy, another defect type: it scores none below good pictures"
    )


def _middles(member: Filter, judged: ScreeningSet) -> dict[str, float]:
    scores = {name: values[values.isfinite()] for name, values in member.score(judged).items()}
    return {name: float(values.median()) for name, values in scores.items() if len(values)}


def _wrong(good: ScreeningSet) -> dict[str, ScreeningSet]:
    rng = torch.Generator().manual_seed(9)
    noise = 2 * torch.rand(good.image.shape, generator=rng) - 1
    noisy = torch.where(good.mask[:, None], noise, good.below)
    moved = good.mask.roll((16, 16), (1, 2))
    swapped = tuple(_DEFECTS[1 - _DEFECTS.index(defect)] for defect in good.defect)
    blended = good.below - 0.5 * good.mask[:, None]
    return {
        "nothing painted": described(good.below, good.mask, good.below, good.defect),
        "noise": described(noisy, good.mask, good.below, good.defect),
        "a shifted label": described(good.image, moved, good.below, good.defect),
        "another defect type": replace(good, defect=swapped),
        "a hard border": described(blended.clamp(-1, 1), good.mask, good.below, good.defect),
    }


FILTER_CHECKS: dict[str, FilterCheck] = {
    check.__name__: check
    for check in (
        filter_settings_round_trip,
        scores_are_named_and_shaped,
        same_pictures_same_scores,
        a_saved_gate_judges_alike,
        neighbours_do_not_matter,
        what_is_unknown_is_abstained_from,
        what_is_wrong_scores_lower,
    )
}
"""Every promise of the contract of filters, by name."""


def check_filter(plugin: type[Filter]) -> None:
    """Run every check on a filter class.

    Raises:
        AssertionError: the first promise that is not kept, in words.
    """
    for check in FILTER_CHECKS.values():
        check(plugin)


def _fitted(plugin: type[Filter], made: ScreeningSet) -> tuple[dict[str, Tensor], dict[str, Tensor], Filter]:
    member = plugin(plugin.Settings(), _DEFECTS)
    left_out = member.fit(example_screening_set(16, own=False), example_screening_set(12, seed=3, damaged=False))
    return member.score(made), left_out, member


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(torch.equal(one.nan_to_num(-123.0), other.nan_to_num(-123.0)))
