"""Reads and writes checkpoints, while training goes on, and decides which are kept."""
