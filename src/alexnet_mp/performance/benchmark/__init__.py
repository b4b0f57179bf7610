"""Benchmarks: variants that train the same network in different ways, each in fresh processes, turn by turn."""
