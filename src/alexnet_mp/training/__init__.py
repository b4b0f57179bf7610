"""Training: the recipe, the optimiser, the loop, and what a run writes."""
