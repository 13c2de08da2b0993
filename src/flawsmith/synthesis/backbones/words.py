"""Do the types of a model differ for the text encoder that reads their names? It reads so many tokens and no more."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.synthesis.learning import Job


@runtime_checkable
class Told(Protocol):
    """A generator that is told a type by words alone."""

    def told(self, defect: str, product: str) -> str | None:
        """Return the prompt that alone tells a defect type from others; None = something else does so as well."""


def require_distinct_words(generator: Generator, job: Job) -> None:
    """Refuse two types of a job whose prompts differ, but not for the backbone: it would learn a mixture of both.

    Args:
        generator: The job's, untrained.
        job: Whose types.

    Raises:
        ConfigError: names the two.
    """
    if generator.backbone is None or not isinstance(generator, Told):
        return
    names = sorted({(str(shot.defect), shot.product) for shot in job.shots})
    prompts = {name: told for name in names if (told := generator.told(*name)) is not None}
    if len(prompts) < 2:
        return
    first: dict[tuple[int, ...], tuple[str, str]] = {}
    for name, row in zip(prompts, generator.backbone.tokens(list(prompts.values())).tolist(), strict=True):
        other = first.setdefault(tuple(row), name)
        if prompts[other] != prompts[name]:
            raise ConfigError(
                f"data.defects: {other[0]} and {name[0]} are the same words for this backbone, which reads "
                f"{len(row)} tokens of {prompts[other]!r} and {prompts[name]!r} and no more; give these types shorter "
                'names, or set train.scope = "defect"'
            )
