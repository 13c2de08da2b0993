"""The process of a command that the page started: the command line itself, which tells the page how far it is.

    python -m flawsmith.studio.commands.child run runs/my --until screen

It differs from `flawsmith run ...` in three things. Progress goes to stdout as lines of JSON (`run.progress.Progress`).
All else that would go there goes to stderr. When stdin is closed, it stops as Ctrl-C stops it: so the page cancels, and
so it ends by itself when the studio was killed.
"""

from __future__ import annotations

import _thread
import faulthandler
import json
import os
import runpy
import signal
import sys
import threading
import time
from dataclasses import asdict

from flawsmith.run.progress import Progress, tell_to

GRACE = 20.0
"""Seconds that a command has to stop by itself; after twice as long it is ended, whatever it is at."""


def main() -> None:
    """Run the command that the arguments name."""
    telling = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(progress: Progress) -> None:
        try:
            telling.write(json.dumps(asdict(progress)) + "\n")
            telling.flush()
        except OSError:  # the studio is gone; `_watch` ends this
            pass

    tell_to(tell)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a studio in the background would hand on that it is off
    threading.Thread(target=_watch, name="studio-watch", daemon=True).start()
    sys.argv[0] = "flawsmith"
    runpy.run_module("flawsmith", run_name="__main__")


def _watch() -> None:
    """Stop the command when stdin is closed; end it where it does not stop."""
    while os.read(sys.stdin.fileno(), 64):
        pass
    # Of C: it works also where Python is shutting down, and lets no thread of its own go on.
    faulthandler.dump_traceback_later(2 * GRACE, exit=True, file=2)
    _thread.interrupt_main(signal.SIGINT)
    time.sleep(GRACE)
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with the processes that it started
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
