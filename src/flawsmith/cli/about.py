"""What a report of a fault needs: versions, machine, card, and what of the environment decides something."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from flawsmith.version import VERSION

VARIABLES = ("FLAWSMITH_PLUGINS", "FLAWSMITH_LANG", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME")
"""Of the environment; nothing else of it is shown."""


def about() -> str:
    """Return lines of "name: value"."""
    lines = [
        f"flawsmith: {VERSION} in {Path(__file__).parents[1]}",
        f"Python: {platform.python_version()} ({sys.executable})",
        f"system: {platform.platform()}",
        f"processor: {_processor()}, {os.cpu_count()} cores{_memory()}",
        *_torch(),
        *(f"{name}: {_installed(name)}" for name in _dependencies() if name != "torch"),
        *(f"{name}: {os.environ[name]}" for name in VARIABLES if name in os.environ),
    ]
    return "\n".join(lines)


def _torch() -> list[str]:
    try:
        import torch
    except Exception as error:  # a torch that cannot be loaded is what the report is about
        return [f"torch: {_installed('torch')}, which cannot be imported: {error}"]
    from flawsmith.nn.device import gains_from_bfloat16

    quick = "bfloat16" if gains_from_bfloat16() else "float32"
    lines = [f"torch: {torch.__version__}, CUDA {torch.version.cuda or 'absent'}, on this processor in {quick}"]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(number)
        lines.append(f"card {number}: {card.name}, {card.total_memory / 2**30:.0f} GiB")
    return lines if len(lines) > 1 else [*lines, "card: none that torch can use"]


def _dependencies() -> list[str]:
    """Return what flawsmith is said to need, without extras; [] where it is not installed."""
    try:
        wanted = requires("flawsmith") or []
    except PackageNotFoundError:
        return []
    return [re.split(r"[ <>=!~;\[]", line)[0] for line in wanted if "extra ==" not in line]


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)
    except OSError:
        named = None
    return named[1] if named else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB of memory"
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return ""
