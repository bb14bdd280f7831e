"""The parts of `annotator.distill`: linear heads, their cross-validation, and what more labels would buy."""
