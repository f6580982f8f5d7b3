# The notebooks, executed on a lake that a short run of the demo makes; and JupyterLab to work with them.
# Those on Spark have a target of their own: pyspark, its jars and a JDK 17 are 1 GB that the others do without.

.PHONY: notebooks notebooks-spark lab lab-spark

notebooks: $(VENV)/.notebooks ## the notebooks, executed on a lake of the demo; results in build/notebooks
	@$(BIN)/python notebooks/execute.py

notebooks-spark: $(VENV)/.notebooks $(VENV)/.stack ## those on Spark likewise; results in build/notebooks-spark
	@$(BIN)/python notebooks/execute.py --spark

lab: $(VENV)/.notebooks ## JupyterLab with the notebooks, on the lake of make demo
	@$(BIN)/jupyter lab --ServerApp.root_dir=notebooks

lab-spark: $(VENV)/.stack lab ## JupyterLab likewise, with pyspark beside it

$(VENV)/.notebooks: requirements/notebooks.txt $(VENV)/.dev
	@$(PIP) install --no-compile --require-hashes -r requirements/notebooks.txt
	@touch $@
