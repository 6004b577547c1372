# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The Python environments: .venv (what everything runs in) and, where Python 3.8 can be tested
# and .venv is too new for it, .venv-oldest. Exact versions: requirements/core-*.txt.

# What an environment was made from; when it changes, the environment is made again.
environment_key() { # LOCK
    printf '%s %s\n' "$(sha256sum <"$1" | cut -c1-64)" "$PWD"
}

environment_is_ready() { # DIRECTORY LOCK
    [ "$(cat "$1/made-from" 2>/dev/null)" = "$(environment_key "$2")" ] &&
        "$1/bin/python" -c '' 2>/dev/null
}

lock_for() { # PYTHON
    local version
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || return 1
    case $version in
        3.11) echo requirements/core-2.19.txt ;;
        *) echo requirements/core-2.21.txt ;;
    esac
}

make_environment() { # DIRECTORY LOCK PYTHON WHAT-FOR
    local packages
    packages=$(grep -c '^[a-z]' "$2")
    say "Making the Python environment $1 ($4) with $3:" \
        "about $packages packages, exactly those of $2, nothing outside $1. Takes a minute or two."
    rm -rf "$1"
    "$3" -m venv "$1"
    # --no-deps: the list is complete, and only what it names may come in.
    "$1/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r "$2" ||
        refuse "pip could not install $2; its own words are above. Nothing but $1 was changed."
    "$1/bin/python" -m pip check --disable-pip-version-check >/dev/null
    environment_key "$2" >"$1/made-from"
}

main_environment_is_ready() {
    local lock
    lock=$(lock_for .venv/bin/python 2>/dev/null) && environment_is_ready .venv "$lock"
}

make_main_environment() {
    local python
    if main_environment_is_ready; then return 0; fi
    python=$(find_controller_python)
    make_environment .venv "$(lock_for "$python")" "$python" "demo, tests and tools"
}

# Of the main environment, which is made without it: it can only be built where libvirt is.
libvirt_binding_is_there() {
    .venv/bin/python -c 'import libvirt, libvirt_qemu' 2>/dev/null
}

make_libvirt_binding() {
    if libvirt_binding_is_there; then return 0; fi
    say "Building libvirt-python into .venv, for the tests of libvirt's domains."
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements/libvirt.txt ||
        refuse "pip could not build libvirt-python; its own words are above. Nothing but .venv was changed."
}

# ansible-core 2.21 cannot test Python 3.8 any more, 2.19 (Python 3.11) can. Fails when this
# machine cannot have such an environment.
make_oldest_environment() {
    local lock=requirements/core-2.19.txt python
    if environment_is_ready .venv-oldest "$lock"; then return 0; fi
    python=$(CONTROLLER_PYTHONS=3.11 find_controller_python) || return 1
    make_environment .venv-oldest "$lock" "$python" "ansible-core 2.19, for Python 3.8"
}

# .build/collections is where Ansible, pytest and mypy find vmfleet.suspend: one link to the
# checkout, which may itself be called anything.
link_collection() {
    local link=.build/collections/ansible_collections/vmfleet/suspend
    mkdir -p "${link%/*}"
    [ "$(readlink "$link" || true)" = ../../../.. ] || ln -sfn ../../../.. "$link"
}
