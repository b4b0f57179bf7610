"""Checkpoints: the files of one, the folder of a run's, and writing them while training goes on."""
