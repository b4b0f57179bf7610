"""The report of a run: one HTML page that needs nothing else, from what the run left in its folder."""
