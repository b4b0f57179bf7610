"""Reports on a run: one HTML page that needs nothing else, made from the files in the folder of the run."""
