"""What every plug-in must do, as checks that anyone can run on a plug-in of their own:

    from flawsmith.testing import check_detector, check_exporter, check_filter, check_generator, check_metric
    check_generator(MyGenerator, backbone)
    check_filter(MyFilter)
    check_metric(my_metric)
    check_detector(MyDetector)
    check_exporter(MyExporter)

Each check is a function that raises AssertionError with a sentence; `GENERATOR_CHECKS`, `FILTER_CHECKS`,
`METRIC_CHECKS`, `DETECTOR_CHECKS` and `EXPORTER_CHECKS` list them by name, so that a suite can show them one by one.
"""

from flawsmith.testing.detectors import DETECTOR_CHECKS, check_detector, example_training, tiny_extractor
from flawsmith.testing.exporters import EXPORTER_CHECKS, check_exporter, example_pictures
from flawsmith.testing.filters import FILTER_CHECKS, check_filter, described, example_screening_set
from flawsmith.testing.generators import GENERATOR_CHECKS, check_generator, example_batch, example_condition
from flawsmith.testing.metrics import METRIC_CHECKS, check_metric, example_feature_set

__all__ = [
    "DETECTOR_CHECKS",
    "EXPORTER_CHECKS",
    "FILTER_CHECKS",
    "GENERATOR_CHECKS",
    "METRIC_CHECKS",
    "check_detector",
    "check_exporter",
    "check_filter",
    "check_generator",
    "check_metric",
    "described",
    "example_batch",
    "example_condition",
    "example_feature_set",
    "example_pictures",
    "example_screening_set",
    "example_training",
    "tiny_extractor",
]
