"""The version, in its one place: pyproject.toml reads it from here, and a test holds CITATION.cff to it.

Between two releases it is that of the next one with `.dev0`.
"""

VERSION = "0.3.0.dev0"
