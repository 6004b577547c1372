#!/usr/bin/env bash
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run a command in the environment of this checkout; without one, open a shell there.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/environment.sh

if [ $# -gt 0 ]; then
    exec "$@"
fi
printf '%s\n' "ansible, ansible-playbook and pytest of this checkout, vmfleet.suspend importable; exit to leave."
export PS1='(vmfleet.suspend) \w\$ '
exec bash --norc
