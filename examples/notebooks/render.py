"""Execute notebooks and write what they show as Markdown with pictures, below rendered/.

    python examples/notebooks/render.py [--out FOLDER] [NAME ...]

Needs the extra `notebooks` (Jupytext, nbconvert, ipykernel); `make notebooks` brings it. A cell that fails stops it.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

import jupytext
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor
from PIL import Image

HERE = Path(__file__).parent


def render(source: Path, out: Path) -> None:
    """Execute one notebook; write OUT/NAME.md, and its pictures as OUT/NAME-1.jpg and so on."""
    notebook = jupytext.read(source)
    ExecutePreprocessor(timeout=600).preprocess(notebook, {"metadata": {"path": str(HERE)}})
    for cell in notebook.cells:  # progress goes to stderr, and says another rate each time
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    out.mkdir(parents=True, exist_ok=True)
    shown = [name for name in re.findall(r"!\[png\]\(([^)]+)\)", text) if name in resources["outputs"]]
    for number, name in enumerate(shown, 1):
        picture = f"{source.stem}-{number}.jpg"
        Image.open(io.BytesIO(resources["outputs"][name])).convert("RGB").save(out / picture, quality=88)
        text = text.replace(f"![png]({name})", f"![What the cell above shows]({picture})")
    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)  # odd ones are code
    parts[::2] = [re.sub(r"\n[ \n]*\n(?=\S|    \S)", "\n\n", part) for part in parts[::2]]
    text = "".join(parts)
    links = text.replace("](../../", "](../../../")  # it lies a folder deeper
    head = f"<!-- Made by examples/notebooks/render.py from {source.name}: change that. -->\n\n"
    (out / f"{source.stem}.md").write_text(head + links.strip() + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="stems of the notebooks; else those that need no Anomalib")
    parser.add_argument("--out", type=Path, default=HERE / "rendered")
    asked = parser.parse_args()
    for name in asked.names or ["from_python", "own_generator", "draw_and_paint"]:
        print(f"{name} ...", flush=True)
        render(HERE / f"{name}.py", asked.out)
