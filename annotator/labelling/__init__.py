"""The parts of `annotator.label`: what is asked of a judge, and how rows become tables."""
