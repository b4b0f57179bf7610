"""Checkpoints: their files, which are kept, and writing them while training goes on."""
