"""The live console: a lake as pages, offline, on this machine. `serve` runs it; claimhouse.cli.console calls it."""
