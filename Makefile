# Each target does its own set-up, so that each works in a fresh clone.

.PHONY: setup demo test check bench

# Install what is missing and build .venv, which then holds bin/leaktop.
setup:
	@scripts/setup.sh

# Watch examples/leaky.c; make demo ARGS="--json -n 2" passes arguments on to leaktop.
demo:
	@scripts/setup.sh
	@scripts/demo.sh $(ARGS)

# All tests; those that trace need root and BPF, and are skipped without.
test:
	@scripts/setup.sh test
	.venv/bin/python -m pytest $(ARGS)

check:
	@scripts/setup.sh check
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy
	.venv/bin/lint-imports

# Measurements, side by side with other tools where there are any; as root. Takes about half an hour,
# ARGS=--quick a few minutes. What it says goes into the document with:
# .venv/bin/python bench/table.py --into docs/performance.md
bench:
	@scripts/setup.sh bench
	.venv/bin/python bench/pairs.py $(ARGS)
	.venv/bin/python bench/programs.py $(ARGS)
	.venv/bin/python bench/reading.py $(ARGS)
	.venv/bin/python bench/startup.py $(ARGS)
	.venv/bin/python bench/screen.py $(ARGS)
	.venv/bin/python bench/symbols.py $(ARGS)
	.venv/bin/python bench/growth.py
	.venv/bin/python bench/table.py
