"""The parts of `annotator.slices`: candidates, tests, and the search for the few slices that explain a loss."""
