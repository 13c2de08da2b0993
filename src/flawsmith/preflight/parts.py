"""What `flawsmith check` says of where damage is laid: on the part where one lies on a backdrop, else anywhere."""

from __future__ import annotations

from statistics import median

from flawsmith.data.photographs import Photographs
from flawsmith.data.split import Split
from flawsmith.errors import FlawsmithError
from flawsmith.preflight.findings import Findings

OUTLIER = 2.0
"""How many times larger or smaller than in most photographs a part may be: beyond, it may be half found."""


def look_at_parts(divided: Split, findings: Findings) -> Photographs:
    """Say which products are parts on a backdrop and which are surfaces, and where photographs do not agree on it.

    Returns:
        The normal photographs, with what was found in those that were looked at.
    """
    photographs = Photographs(divided.normals)
    surfaces = []
    for product in sorted({normal.product for normal in divided.normals}):
        try:
            shares = dict(photographs.part_shares(product))
        except FlawsmithError:
            continue  # a photograph that cannot be read is named elsewhere
        with_part, total = [share for share in shares.values() if share < 1], len(shares)
        if photographs.is_surface(product):
            surfaces.append(product)
            if with_part:
                findings.warnings.append(
                    f"{product}: {len(with_part)} of {total} normal photographs show a part on a backdrop, the others "
                    "none; so damage may lie anywhere in them, on a backdrop too"
                )
            continue
        findings.parts[product] = shares
        if len(with_part) < total:
            findings.warnings.append(
                f"{product}: no part was found in {total - len(with_part)} of {total} normal photographs; in such ones "
                "damage may lie anywhere"
            )
        typical = median(with_part)
        if outliers := sum(not typical / OUTLIER <= share <= typical * OUTLIER for share in with_part):
            findings.warnings.append(
                f"{product}: in {outliers} of {total} normal photographs the part that was found is more than "
                "twice as large or as small as in most; where only a piece was found, damage lies on it alone"
            )
    if findings.parts:
        names = ", ".join(findings.parts)
        findings.notes.append(f"damage will lie on the part, which was found on its backdrop: {names}")
    if surfaces:
        findings.notes.append(f"damage may lie anywhere, for the surface fills its photographs: {', '.join(surfaces)}")
    return photographs
