"""Benchmarks: contenders that train the same network in different ways, each in fresh processes, turn by turn."""
