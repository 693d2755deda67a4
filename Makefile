# The environment's folder, and the Python to make it with (found, if not named).
VENV ?= .venv
PYTHON ?=
# More flags for the job: make prune ARGS="--input clicks --output kept"
ARGS ?=
# Sets of test files that run side by side, each with a Spark of its own; 0: one after the other. A Spark test
# leaves half of two cores idle.
WORKERS ?= 3

BIN := $(VENV)/bin

# Another Spark's settings in the user's shell would hide this environment's own.
unexport SPARK_HOME SPARK_CONF_DIR PYSPARK_PYTHON PYSPARK_DRIVER_PYTHON PYSPARK_SUBMIT_ARGS PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help setup prune notebooks evaluate results test soak bench bench-quick audit lint lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## Make the environment in VENV (.venv): packages, jars, Spark's settings; once
	@for p in "$(PYTHON)" python3.11 python3.12 python3.10 python3; do \
	  if "$$p" -c '' 2>/dev/null; then \
	    exec "$$p" scripts/setup_env.py --venv "$(VENV)" --python "$(PYTHON)"; \
	  fi; \
	done; \
	echo "set-up stopped: Python 3.11 is needed, and there is no python3 on PATH. Install it" \
	  "(Debian and Ubuntu: apt-get install python3.11 python3.11-venv), or name it:" \
	  "make setup PYTHON=/path/to/python3.11" >&2; exit 2

prune: setup ## Keep a tenth of the data, and report: of your own with ARGS="--input …", else of a demo
	"$(BIN)/spark-submit" jobs/prune.py --ratio 0.1 --report $(ARGS)

notebooks: setup ## Open the notebooks in JupyterLab, which is fetched when first asked for
	@"$(BIN)/python" -m ipykernel install --prefix "$(VENV)" >/dev/null  # the kernel is this environment's Python
	JUPYTER_PATH="$$(CDPATH= cd -- "$(VENV)" && pwd)/share/jupyter" \
	  "$(BIN)/uv" tool run --from jupyterlab jupyter-lab --notebook-dir=notebooks $(ARGS)

evaluate: setup ## What pruning costs in quality, in minutes: on your data with ARGS="--input … --test …"
	"$(BIN)/spark-submit" jobs/evaluate.py --quick $(ARGS)

# Two public data sets, which are not part of the project, as Parquet. yoochoose100k: the 100k cut that GitHub's
# rn5l/session-rec ships, events (session_id, item_id, ts) of train_full and of test. diginetica: by SR-GNN's script, as
# CCIIPLab/GCE-GNN ships it, sessions (session_id d000001 on, items) and test (prefix, target; longest prefix first).
DATA ?= ../shared/data
YOOCHOOSE := --fit-epochs-tried 4,8,16 --name yoochoose --input "$(DATA)/yoochoose100k/events.parquet" \
	--test "$(DATA)/yoochoose100k/events_test.parquet"
DIGINETICA := --fit-epochs-tried 3,6 --name diginetica --input "$(DATA)/diginetica/sessions_train.parquet" \
	--order-column session_id --test "$(DATA)/diginetica/test.parquet"
EVALUATE := "$(BIN)/spark-submit" jobs/evaluate.py --document docs $(ARGS)

results: setup ## Regenerate docs/results.md from the data sets in DATA: hours; goes on where it stopped
	$(EVALUATE) $(YOOCHOOSE) --ratios 0.05,0.1,0.2,0.3,0.5,1 --regimes steps,epochs
	$(EVALUATE) $(YOOCHOOSE) --ratios 0.1,0.3 --regimes steps --targets gru4rec,item-knn,session-knn,markov \
	  --methods graph,random,recent,item-quota,ccs,d2,dual,moderate,easiest,hardest
	$(EVALUATE) $(YOOCHOOSE) --split validation --ablations all --ratios 0.1,0.3 --regimes tuned \
	  --targets gru4rec,item-knn,session-knn,markov --seeds 1
	$(EVALUATE) $(YOOCHOOSE) --ratios 0.1,0.3 --samples positions,prefixes,last --regimes steps \
	  --targets gru4rec --ablations unit --seeds 1
	$(EVALUATE) $(YOOCHOOSE) --split validation --ablations demand,kappa=0 --ratios 0.05,0.1,0.2,0.3,0.5 \
	  --regimes tuned --targets gru4rec,sasrec,item-knn,session-knn
	$(EVALUATE) $(DIGINETICA) --split validation --ablations demand,kappa=0 --ratios 0.1,0.3 \
	  --regimes tuned --targets gru4rec,sasrec,item-knn,session-knn
	$(EVALUATE) $(DIGINETICA) --ratios 0.1,0.3 --regimes steps --seeds 1

# Files in the order given, those that take minutes first: xdist would begin with those of many tests.
# Each worker computes in one thread: more of them wait for each other, and burn the cores that all share.
PYTEST := OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --doctest-modules

test: setup ## Run every test, those without Spark first; but for those of make soak
	$(PYTEST) -m "not soak" scripts/environment tests/core
	$(PYTEST) -m "not soak" tests/e2e tests/spark prune_lib

soak: setup ## Run the long tests: kill -9 everywhere, executors lost, full disks, notebooks; over an hour
	"$(BIN)/python" -m pytest -m soak --durations=0 tests/e2e tests/spark

bench: setup ## Measure everything of docs/performance.md anew: some four hours on an idle machine
	"$(BIN)/python" benchmarks/bench.py $(ARGS)

bench-quick: setup ## See that no ratio of speeds has fallen by half since it was recorded: two minutes
	"$(BIN)/spark-submit" benchmarks/guard.py $(ARGS)

audit: setup ## Ask the Python Package Index which known flaws the pinned packages have (needs the network)
	@"$(BIN)/python" scripts/audit.py "$(BIN)/uv"

lint: setup ## Check style and types
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy" --strict prune_lib scripts benchmarks

lock: setup ## Pin anew what requirements/base.in names (needs the network)
	UV_CUSTOM_COMPILE_COMMAND="make lock" "$(BIN)/uv" pip compile --quiet --upgrade --universal \
	  --python-version 3.10 --generate-hashes --no-annotate --no-emit-index-url \
	  --no-emit-find-links requirements/base.in --output-file requirements/lock.txt

clean: ## Remove the environment and what the tools left; your tables stay
	@if [ -f "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
