"""Benchmarks: figures in one sitting, as ratios to a reference beside them: `make bench`."""
