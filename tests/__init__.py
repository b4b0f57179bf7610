"""The tests, with one CPU thread in each process.

Small networks gain nothing from more, two processes on two cores lose much, and results are promised to be bit-equal
for one. The variable must be there before torch is imported; a test of several threads sets them itself.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
