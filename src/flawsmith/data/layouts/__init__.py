"""Folder layouts: what lies where below the root, and what became of every file there.

    tree        every file below the root, listed once; `data.exclude`
    mvtec, visa, pairs, pattern     a layout each
    coco, labelme, yolo, label_studio       the layouts of labelling tools; annotated: what these share
    mask_names  which photograph a mask belongs to
    ledger      what became of every file
    survey      all of it together

Nothing here opens a photograph.
"""

from flawsmith.data.layouts.survey import LAYOUTS, Survey, scan, survey
from flawsmith.data.layouts.tree import natural_key

__all__ = ["LAYOUTS", "Survey", "natural_key", "scan", "survey"]
