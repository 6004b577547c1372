# The project's commands. Each installs what it needs first (tools/setup.sh says what, before it does).
# They work from a checkout in any directory; nothing outside it is written but system packages.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# Most of a test's time is waiting for a guest, so that three share two processors well. A file's
# tests stay together: they share what is costly to start.
WORKERS ?= --numprocesses=3 --dist=loadfile
.DEFAULT_GOAL := help
.PHONY: help checks demo test test-full lint sanity unit integration molecule bench shell clean setup

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

setup:
	@tools/setup.sh

demo: setup ## save a real guest, look at the image, bring it back; the guest checks its own memory
	@tools/shell.sh ansible-playbook vmfleet.suspend.demo

test: checks ## lint, ansible-test sanity, molecule, unit and integration tests
	@tools/shell.sh pytest $(WORKERS)

test-full: checks ## the same with every cell of the matrices
	@tools/shell.sh pytest $(WORKERS) --full

# Neither of the two that go on beside each other fills a processor.
checks: lint
	@tools/setup.sh libvirt
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target sanity molecule

lint: setup ## everything that only reads the tree: style, types, layers, documentation, packaging
	@tools/lint.sh

sanity: setup ## ansible-test sanity on every Python from 3.8 on that this machine has
	@tools/sanity.sh

unit: setup ## unit tests only
	@tools/shell.sh pytest $(WORKERS) tests/unit

integration: setup ## tests on real guests only
	@tools/setup.sh libvirt
	@tools/shell.sh pytest $(WORKERS) tests/integration

molecule: setup ## the roles' scenarios, each on a host of its own
	@tools/setup.sh libvirt
	@tools/molecule.sh

bench: setup ## measure, libvirt beside it; prints figures, judges none
	@tools/setup.sh libvirt
	@tools/shell.sh pytest tests/benchmark -s

shell: setup ## a shell in which ansible knows the collection
	@tools/shell.sh

clean: ## remove everything that these commands made in this directory
	rm -rf .venv .venv-oldest .build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
