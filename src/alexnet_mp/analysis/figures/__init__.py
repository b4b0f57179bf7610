"""Draws the paper's figures from runs of our own."""
