"""Networks of published feature extractors and classifiers."""
