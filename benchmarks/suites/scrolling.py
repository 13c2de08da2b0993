"""Scroll the studio's page Review from top to end, frame by frame; suite `studio.py` and the studio's tests use it."""

from __future__ import annotations

from typing import Any

_SCROLL = """async (steps) => {
  const holder = document.querySelector(".samples");
  const end = holder.scrollHeight;
  let [longest, before, most] = [0, performance.now(), 0];
  for (let step = 0; step <= steps; step += 1) {
    holder.scrollTop = (end * step) / steps;
    await new Promise((resume) => requestAnimationFrame(resume));
    const now = performance.now();
    longest = Math.max(longest, now - before);
    before = now;
    most = Math.max(most, holder.querySelectorAll(".cell").length);
  }
  return { longest_frame_milliseconds: Math.round(longest), most_cells: most };
}"""


def scroll(page: Any, steps: int = 200) -> dict[str, int]:
    """Return the longest frame in milliseconds, and how many samples the page held at most.

    Args:
        page: Playwright's, with Review in sight.
        steps: Frames from top to end.
    """
    figures: dict[str, int] = page.evaluate(_SCROLL, steps)
    return figures
