# The project's commands. Each installs what it needs first (tools/setup.sh says what, before it does).
# They work from a checkout in any directory; nothing outside it is written but system packages.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# Most of a test's time is waiting for a guest, so that four share two processors well. A file's
# tests stay together: they share what is costly to start. Files go in their order, the long ones
# first, and not by how many tests they have.
WORKERS ?= --numprocesses=4 --dist=loadfile --no-loadscope-reorder
# The longest one first.
SCENARIOS := $(addprefix molecule/,fleet $(filter-out fleet,$(notdir $(wildcard extensions/molecule/*))))
.DEFAULT_GOAL := help
.PHONY: help checks demo test test-full lint sanity unit integration molecule bench shell clean setup libvirt \
	$(SCENARIOS)

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

setup:
	@tools/setup.sh

libvirt: setup
	@tools/setup.sh libvirt

demo: setup ## save a real guest, look at the image, bring it back; the guest checks its own memory
	@tools/shell.sh ansible-playbook vmfleet.suspend.demo

test: checks ## lint, ansible-test sanity, molecule, unit and integration tests
	@tools/shell.sh pytest $(WORKERS)

test-full: checks ## the same with every cell of the matrices
	@tools/shell.sh pytest $(WORKERS) --full

# None of those that go on beside each other fills a processor.
checks: lint libvirt
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target sanity $(SCENARIOS)

lint: setup ## everything that only reads the tree: style, types, layers, documentation, packaging
	@tools/lint.sh

sanity: setup ## ansible-test sanity on every Python from 3.8 on that this machine has
	@tools/sanity.sh

unit: setup ## unit tests only
	@tools/shell.sh pytest $(WORKERS) tests/unit

integration: libvirt ## tests on real guests only
	@tools/shell.sh pytest $(WORKERS) tests/integration

molecule: $(SCENARIOS) ## the scenarios of roles and fleets, each on hosts of its own

$(SCENARIOS): molecule/%: libvirt
	@tools/molecule.sh test $*

bench: libvirt ## measure, libvirt beside it; prints figures, judges none
	@tools/shell.sh pytest tests/benchmark -s

shell: setup ## a shell in which ansible knows the collection
	@tools/shell.sh

clean: ## remove everything that these commands made in this directory
	rm -rf .venv .venv-oldest .build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
