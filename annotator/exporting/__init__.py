"""The parts of `annotator.export`: where a mixture lies and what it may replace."""
