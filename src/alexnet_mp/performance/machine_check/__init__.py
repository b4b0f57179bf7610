"""What no test without GPUs can show: a machine's own link, placements and speeds, checked where they are."""
