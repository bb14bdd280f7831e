"""The parts of `annotator.verify`: effects with intervals, and what each verdict asks for."""
