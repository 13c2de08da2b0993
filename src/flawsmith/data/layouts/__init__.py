"""Folder layouts: what lies where below the root, and what became of every file there.

    tree        every file below the root, listed once; `data.exclude`
    folders/    the layouts in which names of folders and files say everything; a file each
    annotated/  the layouts in which the files of a labelling tool do; a file each
    mask_names  which photograph a mask belongs to
    doubles     previews and overlays beside photographs
    reading     what a layout returns
    ledger      what became of every file
    survey      all of it together

Nothing here opens a photograph.
"""

from flawsmith.data.layouts.survey import LAYOUTS, Survey, scan, survey
from flawsmith.data.layouts.tree import natural_key

__all__ = ["LAYOUTS", "Survey", "natural_key", "scan", "survey"]
