# Fraud rules measured on the labelled book. Included by the Makefile.

.PHONY: fraud-report
fraud-report: $(VENV)/.dev ## precision, recall and alerts of each rule on held-out books, also into build/fraud.json
	@$(BIN)/claimhouse fraud report --out build/fraud.json $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SCALE),--scale $(SCALE))

.PHONY: bench-fraud
bench-fraud: $(VENV)/.dev ## commit to hit at the demo's rate; run it alone on the machine
	@$(BIN)/python -m tests.fraud.latency $(BENCH)
