"""The parts of `annotator.decontaminate`: words, seeds, and quoted stretches."""
