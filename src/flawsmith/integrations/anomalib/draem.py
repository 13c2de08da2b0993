"""DRAEM, whose simulated damage is a run's samples."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from anomalib import models

from flawsmith.errors import ConfigError


class Draem(models.Draem):
    """DRAEM that learns from a run's samples: what is beneath is the picture to reconstruct, what was made the damage.

    Zavrtanik et al., "DRAEM", ICCV 2021, simulate damage by textures blended in where Perlin noise is high. Here the
    samples take that place. Real shots are passed over, since no photograph shows them undamaged. Needs a `DataModule`.

    Args:
        dtd_dir: A folder of textures: normal pictures are then damaged as in the paper as well; None = they are not.
        arguments: Further arguments of Anomalib's Draem.
    """

    supervised = True

    def __init__(self, dtd_dir: Path | str | None = None, **arguments: Any) -> None:
        with TemporaryDirectory() as empty:  # without a folder Anomalib would download one
            super().__init__(dtd_dir=dtd_dir or empty, **arguments)
        self._textures = dtd_dir is not None

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch; None where it holds shots alone."""
        if getattr(batch, "beneath", None) is None:
            raise ConfigError("Draem of flawsmith learns from its DataModule alone, and was given another")
        image, beneath = (one.as_subclass(torch.Tensor) for one in (batch.image, batch.beneath))
        if beneath.shape != image.shape:
            beneath = torch.nn.functional.interpolate(beneath, image.shape[-2:], mode="bilinear", antialias=True)
        damaged = batch.gt_label.bool()
        kept = ~damaged | (image != beneath).flatten(1).any(1)
        if not kept.any():
            return None
        image, beneath, damaged = image[kept], beneath[kept], damaged[kept]
        clean = torch.where(damaged[:, None, None, None], beneath, image)
        mask = batch.gt_mask.as_subclass(torch.Tensor)[kept].unsqueeze(1).float()
        if self._textures:
            blended, blended_mask = self.augmenter(clean)
            image = torch.where(damaged[:, None, None, None], image, blended)
            mask = torch.where(damaged[:, None, None, None], mask, blended_mask)
        reconstruction, prediction = self.model(image)
        loss = self.loss(clean, reconstruction, mask, prediction)
        self.log("train_loss", loss.item(), on_epoch=True, prog_bar=True, logger=True)
        return {"loss": loss}
