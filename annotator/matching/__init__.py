"""The parts of `annotator.match` and `annotator.mapping`: affinities of categories, and faults of rule files."""
