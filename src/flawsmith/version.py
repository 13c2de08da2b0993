"""The version, in its one place: pyproject.toml reads it from here, and a test holds CITATION.cff to it."""

VERSION = "0.2.0"
