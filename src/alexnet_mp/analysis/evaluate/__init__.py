"""Assessment: checkpoints evaluated on a split, and what is written about it."""
