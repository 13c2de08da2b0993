"""WebDataset's shards, for sets too large to be many small files (https://github.com/webdataset/webdataset).

    FOLDER/train-000000.tar, FOLDER/train-000001.tar, ...
    FOLDER/val-000000.tar

A picture is up to three members of a shard with one key: `<key>.png` (or .tif), `<key>.mask.png` (0 and 255) if it is
damaged, and `<key>.json` with its defect types, its product and where it came from.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from flawsmith import config
from flawsmith.data import images
from flawsmith.data.exported.arrangement import DividedSettings, Side, Written, arranged, counted, write_pictures
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example


class WebdatasetSettings(DividedSettings):
    """What the export can be told."""

    per_shard: Annotated[int, Field(ge=1)] = 1000
    """Pictures in a shard; the last one holds what is left."""


class Webdataset(Exporter):
    """Shards of pictures with masks; equal pictures give equal bytes, for no member keeps its time."""

    Settings: ClassVar[type[config.Settings]] = WebdatasetSettings
    settings: WebdatasetSettings

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, self.settings.validation)
        shards = _Shards(folder, self.settings.per_shard)
        # Each file is deleted once it is in its shard, so that the set is on the disk once.
        with TemporaryDirectory(dir=folder) as scratch:

            def members(written: Written) -> list[tuple[str, bytes]]:
                of = written.of
                described = {"defects": list(written.labels), **of.provenance(written.how)}
                files = [(written.file.suffix, written.file.read_bytes())]
                written.file.unlink()
                if written.labels:
                    path = written.file.with_name(f"{of.name}.mask.png")
                    images.write_mask(path, np.logical_or.reduce(list(written.labels.values())))
                    files.append((".mask.png", path.read_bytes()))
                    path.unlink()
                return [*files, (".json", json.dumps(described, ensure_ascii=False).encode())]

            rows = write_pictures(
                pictures, examples, self.settings.bits, lambda one: Path(scratch) / one.name, members, advance
            )
            try:
                for picture, files in zip(pictures, rows, strict=True):
                    shards.add(picture.side, picture.name, files)
            finally:
                shards.close()
        return counted(pictures)


class _Shards:
    """The shard of each side that is being filled."""

    def __init__(self, folder: Path, per_shard: int) -> None:
        self._folder, self._per_shard = folder, per_shard
        self._counts: dict[Side, int] = {"train": 0, "val": 0}
        self._open: dict[Side, tarfile.TarFile] = {}

    def add(self, side: Side, key: str, files: Sequence[tuple[str, bytes]]) -> None:
        """Add the members of one picture."""
        number, place = divmod(self._counts[side], self._per_shard)
        if not place:
            if side in self._open:
                self._open[side].close()
            path = self._folder / f"{side}-{number:06d}.tar"
            self._open[side] = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)
        for suffix, content in files:
            member = tarfile.TarInfo(key + suffix)
            member.size = len(content)
            self._open[side].addfile(member, io.BytesIO(content))
        self._counts[side] += 1

    def close(self) -> None:
        for shard in self._open.values():
            shard.close()
