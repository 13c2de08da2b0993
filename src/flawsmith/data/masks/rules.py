"""One product's rule for its masks: what of the files counts, which values are background, damage, or neither.

Decided from the levels of all its masks and from what `data.mask` says. Two readings that fit are a question to the
user, with the setting that answers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flawsmith.config import DataConfig, MaskConfig, toml_key
from flawsmith.data.masks.levels import MANY, RIMS, Levels, Undecided
from flawsmith.data.masks.stored import StoredMask
from flawsmith.errors import Answer
from flawsmith.types import Example, MaskRule, MaskSource

ALL_DAMAGE = Answer("data.mask.values", "all")


def rules_of(
    members: Sequence[tuple[Example, Path, StoredMask]], data: DataConfig
) -> tuple[dict[str, MaskRule], list[str]]:
    """Decide how the masks of one product are read.

    Args:
        members: Every mask of the product with its photograph.
        data: The settings of the set.

    Returns:
        {defect type: rule}, and notes that do not name the product.

    Raises:
        Undecided: two readings fit.
    """
    settings = data.mask
    defects = sorted({example.defect or "" for example, _, _ in members})
    masks = tuple(mask for _, _, mask in members)
    explicit = _explicit(settings, defects)
    levels = Levels(masks, _source(masks, settings, [value for values in explicit.values() for value in values]))
    rule = MaskRule(levels.source, inverted=settings.inverted is True, alpha=settings.alpha is not False)
    if not len(levels.values):
        return dict.fromkeys(defects, rule), []
    numbers = {defect: _numbers(values) for defect, values in explicit.items()}
    named = {value for values in numbers.values() for value in values}
    ignore, notes = _ignored(levels, settings, named)
    rule = replace(rule, ignore=ignore)
    if _is_soft(levels, exact=bool(notes or explicit) or settings.values == "all"):
        if explicit:
            raise Undecided("data.mask.values names values, but JPEG keeps none exactly; save its masks as PNG")
        _require_one_scale(levels)
        return dict.fromkeys(defects, replace(rule, soft=levels.top)), [
            f"its masks have {len(levels.values)} levels with soft edges; more than half of the largest is damage"
        ]
    rule = replace(rule, background=_background(levels, named, settings))
    if other := [value for value in rule.background if value != 0]:
        notes.append(f"the background of its masks is {_shown(levels.source, other)}, not 0")
    if explicit:
        return _by_values(defects, levels, rule, numbers), notes
    notes += _require_one_meaning(members, levels, rule, data)
    return dict.fromkeys(defects, rule), notes


def _explicit(settings: MaskConfig, defects: Sequence[str]) -> dict[str, Sequence[int | str]]:
    """Return what `data.mask.values` names, other types included; {} when it speaks of other products alone."""
    if not isinstance(settings.values, dict) or not settings.values.keys() & set(defects):
        return {}
    return {name: _listed(values) for name, values in settings.values.items()}


def _ignored(levels: Levels, settings: MaskConfig, named: set[float]) -> tuple[tuple[float, ...], list[str]]:
    """Return the values that count for nothing, and a note where that was found out."""
    if settings.ignore != "auto":
        return _numbers(settings.ignore), []
    if levels.source in ("colour", "alpha") or named & set(RIMS) or any(mask.lossy for mask in levels.masks):
        return (), []
    rims = levels.rims()
    return rims, [
        f"{rim:g} in its masks is neither damage nor background; data.mask.ignore = [] ends that" for rim in rims
    ]


def _source(masks: tuple[StoredMask, ...], settings: MaskConfig, named: Sequence[int | str]) -> MaskSource:
    """Return what of the files counts; see `MaskRule`."""
    see_through = [mask for mask in masks if mask.alpha is not None]
    if settings.alpha is True:
        if len(see_through) < len(masks):
            raise Undecided(
                f"data.mask.alpha = true, but {len(masks) - len(see_through)} of its {len(masks)} masks are opaque"
            )
        return "alpha"
    if any(isinstance(value, str) for value in named):
        return "colour"
    colours = [mask.levels("colour")[mask.values.count > 0] for mask in masks]
    every = np.unique(np.concatenate(colours))
    if settings.alpha == "auto" and see_through and not named:
        if all(len(one) <= 1 for one in colours) or len(every) > MANY and len(see_through) == len(masks):
            return "alpha"
    palettes = [mask for mask in masks if mask.storage == "palette"]
    if any(mask.storage == "colour" for mask in masks):
        blurred = any(mask.lossy for mask in masks) or len(every) > MANY
        return "grey" if blurred and not named else "colour"
    if not palettes or not named and all(_is_grey(mask) for mask in palettes) and _shows_brightness(masks):
        return "grey"
    meaning: dict[int, int] = {}
    for mask in palettes:
        for index, colour in zip(mask.values.levels.tolist(), mask.levels("colour").tolist(), strict=True):
            if meaning.setdefault(index, colour) != colour:
                return "colour"  # another palette in every file: only the colours stay the same
    return "index"


def _shows_brightness(masks: tuple[StoredMask, ...]) -> bool:
    """Return whether greys behind indices are a picture, of two greys or with soft edges, and not a list of classes."""
    greys = Levels(masks, "grey")
    return len(greys.values) <= 2 or greys.is_soft() is True


def _is_grey(mask: StoredMask) -> bool:
    """Return whether a palette only says which greys the indices are, each another."""
    palette = mask.palette
    assert palette is not None
    grey = bool((palette[:, 1:] == palette[:, :1]).all())
    return grey and len(np.unique(mask.levels("grey"))) == len(mask.values.levels)


def _is_soft(levels: Levels, *, exact: bool) -> bool:
    """Return whether edges are soft; `exact`: it is known already that every value counts as it is, but for JPEG."""
    if levels.source == "colour":
        return False
    if levels.source == "grey" and any(mask.storage == "colour" for mask in levels.masks):
        _require_black(levels)
    if any(mask.lossy for mask in levels.masks):
        _require_exact_enough(levels)
        return True
    if exact:
        return False
    soft = levels.is_soft()
    if soft is None:
        raise Undecided(
            f"its masks hold {len(levels.values)} levels that are neither soft edges nor numbers of pieces; save masks "
            "with 0 for the background and 255 for damage"
        )
    return soft


def _require_exact_enough(levels: Levels) -> None:
    """Raise where JPEG keeps too little to tell damage: small numbers, or areas of several values."""
    lossy = [
        (mask, float(one[-1])) for mask, one in zip(levels.masks, levels.each, strict=True) if mask.lossy and len(one)
    ]
    if max((top for _, top in lossy), default=255.0) < MANY:
        raise Undecided(
            f"its masks are JPEG and hold nothing above {max(top for _, top in lossy):g}, and JPEG keeps no such small "
            "numbers; save them again as PNG, from their source"
        )
    if Levels(tuple(mask for mask, _ in lossy), levels.source).has_middle_areas():
        raise Undecided(
            "its masks are JPEG and hold areas of several values, which JPEG does not keep apart; save them again as "
            "PNG, from their source"
        )


def _require_one_scale(levels: Levels) -> None:
    """Raise where a mask with exact values has only small ones, which soft edges would take for nothing."""
    held = [float(one[-1]) for one, mask in zip(levels.each, levels.masks, strict=True) if len(one) and not mask.lossy]
    if dim := [top for top in held if 0 < top < levels.top / 4]:
        raise Undecided(
            f"the largest value of {len(dim)} of its masks is {max(dim):g} or less, but others with soft edges reach "
            f"{levels.top:g}; save all with 0 for the background and {levels.top:g} for damage"
        )


def _require_black(levels: Levels) -> None:
    """Raise unless coloured masks with soft edges lie on black, where the brightest channel says what is damage."""
    border = levels.total("border")
    if border[levels.values < levels.top / 4].sum() < border.sum() / 2:
        raise Undecided(
            "its coloured masks have soft edges and no black background, so damage cannot be told from it; save them "
            "as PNG with 0 for the background and 255 for damage"
        )


def _background(levels: Levels, named: set[float], settings: MaskConfig) -> tuple[float, ...]:
    """Return the value of the background; () = what is transparent."""
    area, border = levels.total("count"), levels.total("border")
    see_through = levels.source != "alpha" and settings.alpha is not False and any(mask.alpha for mask in levels.masks)
    widest = float(levels.values[area.argmax()])
    agree = area.argmax() == border.argmax() and all(widest in one for one in levels.each)
    zero = 0 in levels.values and 0 not in named
    if zero and (widest == 0 or not named and (levels.source != "colour" or see_through)):
        return (0,)
    if see_through and not zero:
        return ()
    if agree and widest not in named and (named or levels.source == "colour" and not zero):
        return (0, widest) if zero else (widest,)
    if zero and named:
        return (0,)
    shown = _shown(levels.source, [widest])
    share = 100 * area.max() / area.sum()
    if zero:
        raise Undecided(
            f"its masks hold black, but {shown} covers {share:.0f} % of them: which is the background? Name what is "
            "damage: data.mask.values, or save masks with 0 for the background and 255 for damage"
        )
    if settings.inverted != "auto" and len(levels.values) == 1:
        return (0,)
    raise Undecided(
        f"no mask holds 0, which is the background, and {shown} covers {share:.0f} % of them: are they inverted? Name "
        "what is damage: data.mask.values, or save masks with 0 for the background and 255 for damage"
    )


def _by_values(
    defects: Sequence[str], levels: Levels, rule: MaskRule, explicit: Mapping[str, tuple[float, ...]]
) -> dict[str, MaskRule]:
    """Return the rules where `data.mask.values` names values: those of other types are ignored."""
    named = {value for values in explicit.values() for value in values}
    held = levels.values.tolist()
    if missing := sorted({value for defect in defects for value in explicit.get(defect, ())} - set(held)):
        raise Undecided(
            f"data.mask.values names {_shown(levels.source, missing)}, but its masks hold {_shown(levels.source, held)}"
        )
    rules = {}
    for defect in defects:
        if defect not in explicit:
            raise Undecided(f"data.mask.values names no value for its defect type {defect!r}; add it")
        other = tuple(sorted(named - set(explicit[defect])))
        rules[defect] = replace(rule, damage=explicit[defect], ignore=(*rule.ignore, *other))
    known = {*named, *rule.background, *rule.ignore}
    if rest := [value for value in held if value not in known]:
        raise Undecided(
            f"data.mask.values names no type for {_shown(levels.source, rest)} in its masks; add the type, or add the "
            "value to data.mask.ignore"
        )
    return rules


def _require_one_meaning(
    members: Sequence[tuple[Example, Path, StoredMask]], levels: Levels, rule: MaskRule, data: DataConfig
) -> list[str]:
    """Raise where a mask holds several values and nothing says whether all of them are damage of its type."""
    beside = {*rule.background, *rule.ignore}
    several = [
        (example, values)
        for (example, _, _), one in zip(members, levels.each, strict=True)
        if len(values := [value for value in one.tolist() if value not in beside]) > 1
    ]
    if not several or data.layout == "visa" or data.mask.values == "all":
        return []
    if rule.background == (0,) and levels.are_instances(beside):
        return ["its masks number the pieces of damage; everything but 0 is damage"]
    example, values = several[0]
    names = dict(zip([example.defect, "another"], values, strict=False))
    sentence = ", ".join(f"{toml_key(str(name))} = {_toml(levels.source, value)}" for name, value in names.items())
    one = "1 mask holds" if len(several) == 1 else f"{len(several)} masks hold"
    raise Undecided(
        f"{one} several values in one picture ({example.id}: {_shown(levels.source, values)}); say which value is "
        f"which defect type, data.mask.values = {{{sentence}}}, or {ALL_DAMAGE} where all of them are damage of their "
        "picture's type; a value that counts for nothing goes into data.mask.ignore",
        answers=(ALL_DAMAGE,),
    )


def _numbers(values: int | str | Sequence[int | str]) -> tuple[float, ...]:
    """Return values of the configuration as numbers; a colour is 0xRRGGBB."""
    return tuple(int(value[1:], 16) if isinstance(value, str) else value for value in _listed(values))


def _listed(values: int | str | Sequence[int | str]) -> Sequence[int | str]:
    return [values] if isinstance(values, (int, str)) else values


def _toml(source: str, value: float) -> str:
    return f'"#{int(value):06x}"' if source == "colour" else f"{value:g}"


def _shown(source: str, values: Sequence[float]) -> str:
    texts = [f"#{int(value):06x}" if source == "colour" else f"{value:g}" for value in values[:8]]
    return ", ".join(texts) + (", ..." if len(values) > 8 else "")
