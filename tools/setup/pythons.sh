# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Which Pythons this machine has. Every candidate is run before it is believed: version managers
# leave shims in PATH that name a Python and cannot start it.

# On the controller: ansible-core 2.21 needs Python >= 3.12, 2.19 is the newest for 3.11.
# In the order of preference: what the project is developed with comes first.
CONTROLLER_PYTHONS="3.12 3.13 3.14 3.11"

# Every Python that starts, one line each: "MAJOR.MINOR PATH". PATH is the real interpreter,
# never one inside a virtual environment.
list_pythons() {
    local names=(python3) candidates=() candidate root minor
    for minor in {8..14}; do names+=("python3.$minor"); done
    mapfile -t candidates < <(type -aP "${names[@]}" || true)
    root=${PYENV_ROOT:-$HOME/.pyenv}
    candidates+=("$root"/versions/3.*/bin/python)
    for candidate in "${candidates[@]}"; do
        [ -x "$candidate" ] || continue
        "$candidate" -I -c '
import sys
print("%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", sys.executable))
' 2>/dev/null </dev/null || true
    done | awk '!seen[$0]++'
}

# The path of the best of CONTROLLER_PYTHONS that can make an environment; fails without one.
# Debian splits venv off: a python3 without python3-venv cannot make an environment.
find_controller_python() {
    local all version path
    all=$(list_pythons)
    for version in $CONTROLLER_PYTHONS; do
        while read -r path; do
            if "$path" -I -c 'import ensurepip, venv' 2>/dev/null; then
                printf '%s\n' "$path"
                return 0
            fi
        done < <(awk -v version="$version" '$1 == version {sub(/^[^ ]+ /, ""); print}' <<<"$all")
    done
    return 1
}
