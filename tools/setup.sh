#!/usr/bin/env bash
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Make this checkout ready to run: system packages where some are missing, the Python
# environment, the collection's import path. Quick and silent when everything is there.
# Called by every target of the Makefile; run from the checkout. With the word libvirt, also for
# what works with libvirt or is compared with it, and for the browser.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

. tools/setup/say.sh
. tools/setup/pythons.sh
. tools/setup/packages.sh
. tools/setup/environments.sh

install_missing_packages
make_main_environment
if [ "${1:-}" = libvirt ]; then
    install_missing_libvirt
    make_libvirt_binding
fi
link_collection
