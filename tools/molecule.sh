#!/usr/bin/env bash
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run the molecule scenarios (extensions/molecule), each from nothing to nothing; or one step of
# one: tools/molecule.sh converge qemu_conf. Its hosts last until: tools/molecule.sh destroy qemu_conf.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/environment.sh
export ANSIBLE_HOME=$PWD/.build/ansible MOLECULE_EPHEMERAL_DIRECTORY
export VMFLEET_MOLECULE_HOST

if [ "$(id -u)" != 0 ]; then
    echo "molecule: only root can make the scenarios' hosts; not run."
    exit 0
fi
for scenario in ${2:-$(basename -a extensions/molecule/*/)}; do
    MOLECULE_EPHEMERAL_DIRECTORY=$PWD/.build/molecule/$scenario
    VMFLEET_MOLECULE_HOST=$PWD/.build/molecule/$scenario.host
    mkdir -p "$MOLECULE_EPHEMERAL_DIRECTORY"
    molecule "${1:-test}" --scenario-name "$scenario"
done
