#!/usr/bin/env bash
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Make an environment in .build with one older ansible-core, for tests that compare controllers:
# tools/controller.sh 2.18. Prints where its programs are.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

. tools/setup/say.sh
. tools/setup/pythons.sh
. tools/setup/environments.sh

readonly LOCK=requirements/controller-$1.txt DIRECTORY=.build/controller-$1
mkdir -p .build
exec 9>"$DIRECTORY.lock"
flock 9
if ! environment_is_ready "$DIRECTORY" "$LOCK"; then
    python=$(CONTROLLER_PYTHONS="3.12 3.13 3.11" find_controller_python)
    make_environment "$DIRECTORY" "$LOCK" "$python" "ansible-core $1" >&2
fi
echo "$PWD/$DIRECTORY/bin"
