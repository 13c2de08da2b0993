"""A run's trained weights in the formats of other tools: `flawsmith weights`."""

from __future__ import annotations

from pathlib import Path

from flawsmith.errors import RunError
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.unchanged import require_as_trained
from flawsmith.synthesis.train import generator_class, jobs_of, load_backbone


def publish(run: Run, out: Path) -> list[Path]:
    """Write what a run has trained so that other tools read it.

    Args:
        run: A run whose generator is trained: `controlnet_inpaint` and `hybrid` have a ControlNet, `dual_branch`
            low-rank changes.
        out: A new or empty folder; it gets a folder for each model of the run, as in the run's weights/.

    Returns:
        The folders that were written: `controlnet` for diffusers, `lora/NAME` for diffusers and PEFT.

    Raises:
        RunError: nothing is trained yet, or it was changed since; `out` is not empty; or the generator has no such
            weights.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is there already; name a new folder")
    jobs = jobs_of(run.config, open_dataset(run).split)
    folders = {job: run.path("weights", *job.name.split("/")) for job in jobs}
    if not folders or not all((folder / "settings.json").is_file() for folder in folders.values()):
        raise RunError(f"{run.folder}: no weights are trained yet; run `flawsmith train {run.folder}` first")
    require_as_trained(run)
    from flawsmith.nn.methods.control import Control
    from flawsmith.nn.methods.dual_unet import DualUNet
    from flawsmith.nn.methods.published import write_controlnet, write_lora

    backbone, written = load_backbone(run.config), list[Path]()
    for job, folder in folders.items():
        plugin = generator_class(run.config.with_generator(job.generator))
        generator = plugin.load(folder, backbone if plugin.needs_backbone else None)
        job_folder = out.joinpath(*job.name.split("/"))
        for control in (part for part in generator.trainable().values() if isinstance(part, Control)):
            write_controlnet(control, job_folder / "controlnet")
            written.append(job_folder / "controlnet")
        if isinstance(unet := getattr(generator, "unet", None), DualUNet):
            written += write_lora(unet.branches, job_folder / "lora")
    if not written:
        names = ", ".join(run.config.generator.names)
        raise RunError(
            f"{run.folder}: {names} has no weights that other tools read; "
            "controlnet_inpaint, hybrid and dual_branch have"
        )
    return written
