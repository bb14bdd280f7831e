"""The parts of `annotator.simulate_faults`: a made-up exam, and its logs as four harnesses write them."""
