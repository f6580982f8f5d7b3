# The notebooks, executed on a lake that a short run of the demo makes; and JupyterLab to work with them.

.PHONY: notebooks lab

notebooks: $(VENV)/.notebooks ## the notebooks, executed on a lake of the demo; results in build/notebooks
	@$(BIN)/python notebooks/execute.py

lab: $(VENV)/.notebooks ## JupyterLab with the notebooks, on the lake of make demo
	@$(BIN)/jupyter lab --ServerApp.root_dir=notebooks

$(VENV)/.notebooks: requirements/notebooks.txt $(VENV)/.dev
	@$(PIP) install --no-compile --require-hashes -r requirements/notebooks.txt
	@touch $@
