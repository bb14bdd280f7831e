"""The parts of `annotator.diagnose`: comparability, causes, and re-scorers that are pure functions of a log."""
