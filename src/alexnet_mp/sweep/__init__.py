"""Runs sweeps: one torchrun for every variant with every seed, and tables of what they found."""
