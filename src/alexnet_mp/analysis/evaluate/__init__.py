"""Evaluation of checkpoints on a split, what is written about it, and classification of photographs."""
