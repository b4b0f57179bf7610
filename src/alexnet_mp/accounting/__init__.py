"""What networks cost layer by layer, counted as in Johnson's lecture 8: tables and bar charts from network tables."""
