"""Integrations without their libraries: one sentence says what to install."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest


@pytest.mark.skipif(find_spec("anomalib") is not None, reason="anomalib is installed")
def test_without_anomalib_it_says_what_to_install() -> None:
    with pytest.raises(ImportError, match=r'needs Anomalib, .* pip install "flawsmith\[anomalib\]"'):
        import_module("flawsmith.integrations.anomalib")
