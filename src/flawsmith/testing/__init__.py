"""What every plug-in must do, as checks that anyone can run on a class of their own:

    from flawsmith.testing import check_detector, check_exporter, check_filter, check_generator
    check_generator(MyGenerator, backbone)
    check_detector(MyDetector)
    check_filter(MyFilter)
    check_exporter(MyExporter)

Each check is a function that raises AssertionError with a sentence; `GENERATOR_CHECKS`, `DETECTOR_CHECKS`,
`FILTER_CHECKS` and `EXPORTER_CHECKS` list them by name, so that a test suite can show them one by one.
"""

from flawsmith.testing.detectors import DETECTOR_CHECKS, check_detector, example_training, tiny_extractor
from flawsmith.testing.exporters import EXPORTER_CHECKS, check_exporter, example_pictures
from flawsmith.testing.filters import FILTER_CHECKS, check_filter, described, example_lineup
from flawsmith.testing.generators import GENERATOR_CHECKS, check_generator, example_batch, example_condition

__all__ = [
    "DETECTOR_CHECKS",
    "EXPORTER_CHECKS",
    "FILTER_CHECKS",
    "GENERATOR_CHECKS",
    "check_detector",
    "check_exporter",
    "check_filter",
    "check_generator",
    "described",
    "example_batch",
    "example_condition",
    "example_lineup",
    "example_pictures",
    "example_training",
    "tiny_extractor",
]
