"""Evaluates checkpoints on a split, writes the results, and classifies photographs."""
