"""The paper's figures, made again from runs of our own; arrows point to here from the commands only."""
