"""A sweep: one torchrun for every combination of a variant and a seed, and the tables of what they found."""
