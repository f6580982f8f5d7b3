"""Benchmarks: figures in one sitting, as ratios to a reference beside them: `make bench`.

What is measured runs as a command does, and a command spares itself pandas, which Arrow takes in wherever it is found.
"""

from claimhouse.cli.lean import lean

lean()
