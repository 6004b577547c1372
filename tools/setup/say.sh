# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# How the set-up commands talk: one argument, one line.

say() { printf '%s\n' "$@"; }

refuse() {
    say "" "$@" >&2
    exit 1
}
