"""Weights in and out: files of other programs, and files for them."""
