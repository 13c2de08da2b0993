"""Which noise schedules are understood: discrete ones whose networks predict noise, clean latents or velocity.

A schedule of another kind (flow matching, EDM) has other betas or none, and its network predicts something else. Read
as one of these it would paint noise, so it is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flawsmith.errors import BackboneError

_DISCRETE = (
    *(
        "DDIM",
        "DDPM",
        "PNDM",
        "LMSDiscrete",
        "EulerDiscrete",
        "EulerAncestralDiscrete",
        "HeunDiscrete",
        "KDPM2Discrete",
    ),
    *("KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep"),
    *("UniPCMultistep", "LCM", "TCD", "SASolver"),
)
"""diffusers' schedulers of such a schedule, without `Scheduler`."""
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
_TARGETS = ("epsilon", "sample", "v_prediction")


def require_known(config: Mapping[str, Any], place: str) -> None:
    """Refuse the schedule of another kind of model.

    Args:
        config: A diffusers scheduler's configuration; without the name of a class it is taken for a discrete one.
        place: Where it stands, for the error.

    Raises:
        BackboneError: names the class or value that is not understood.
    """
    name = str(config.get("_class_name", "DDIMScheduler"))
    if name.removesuffix("Scheduler") not in _DISCRETE:
        kind = "flow matching" if "Flow" in name else "EDM" if "EDM" in name else "another kind of schedule"
        raise BackboneError(
            f"{place}: {name} is not supported: it is {kind}; known are models of a discrete schedule, such as Stable "
            "Diffusion 1.x, 2.x and XL"
        )
    for key, known in (("prediction_type", _TARGETS), ("beta_schedule", _BETAS)):
        if config.get(key, known[0]) not in known:
            raise BackboneError(f"{place}: {key} {config[key]!r} is not supported; known: {', '.join(known)}")
    if config.get("timestep_type", "discrete") != "discrete":
        raise BackboneError(f"{place}: timestep_type {config['timestep_type']!r} is not supported; known: discrete")
