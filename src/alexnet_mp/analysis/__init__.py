"""What is made from checkpoints and runs: evaluations, figures, reports, pages of results."""
