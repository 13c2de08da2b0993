"""What the page asks about the set: what `flawsmith check` finds in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file."""
    router = APIRouter(prefix="/api")

    @router.post("/check")
    def check(again: bool = False) -> dict[str, Any]:
        """Begin to look the set over, unless that is done or under way."""
        with studio.accepting:
            known = studio.checked
            if known is None or again or known.state not in ("waiting", "running", "done"):
                known = studio.checked = studio.checking.ask("check")
        return known.to_json()

    return router
