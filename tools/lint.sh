#!/usr/bin/env bash
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Everything that reads the tree and runs nothing of it. Goes through all checks, then names
# those that failed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/environment.sh
export ANSIBLE_HOME=$PWD/.build/ansible NO_COLOR=1 # what Ansible's tools leave behind stays here

failed=()
check() { # NAME COMMAND...
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        printf 'ok      %s\n' "$name"
    else
        printf 'FAILED  %s\n%s\n' "$name" "$output"
        failed+=("$name")
    fi
}

# mypy sees the files through the link tree, under their real module names.
types() {
    local all=ansible_collections.vmfleet.suspend status=0 output
    output=$(mypy -p "$all.plugins" -p "$all.roles" -p "$all.tests") || status=$?
    printf '%s\n' "${output//.build\/collections\/ansible_collections\/vmfleet\/suspend\//}"
    return "$status"
}

# The files must be found under the names that the contracts in pyproject.toml use.
layers() {
    PYTHONPATH=.build/collections lint-imports --no-logo --cache-dir .build/import-linter
}

shell_scripts() {
    local script
    for script in .ci/run tools/*.sh tools/setup/*.sh; do bash -n "$script"; done
}

ansible_files() {
    ansible-lint --offline --strict
}

documentation() { # it logs into HOME
    (cd .build/collections/ansible_collections/vmfleet/suspend &&
        HOME=$ANSIBLE_HOME antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .)
}

tarball() {
    rm -rf .build/dist
    ansible-galaxy collection build --output-path .build/dist
}

check "ruff check" ruff check .
check "ruff format" ruff format --check --diff .
check "mypy" types
check "import-linter: the layers" layers
check "bash -n" shell_scripts
check "yamllint" yamllint --strict .
check "ansible-lint" ansible_files
check "antsibull-docs" documentation
check "antsibull-changelog" env HOME="$ANSIBLE_HOME" antsibull-changelog lint
check "ansible-galaxy collection build" tarball

[ ${#failed[@]} -eq 0 ] || { printf '\nlint: %s failed\n' "$(IFS=,; echo "${failed[*]}")"; exit 1; }
