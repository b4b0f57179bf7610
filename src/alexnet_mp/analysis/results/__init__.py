"""Writes the page of results: what runs found, beside what others published."""
