"""Benchmarks: figures in one sitting, as ratios to a reference measured beside them. `make bench`, `make bench-smoke`."""
