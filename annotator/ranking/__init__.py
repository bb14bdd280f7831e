"""The parts of `annotator.rank`: the gain of a document, the order of choice, near duplicates."""
