#!/usr/bin/env bash
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# ansible-test sanity, without containers: all its tests on the controller's Python; compile and
# import on every Python from 3.8 on that this machine has. No ignore files.

set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/setup/say.sh
. tools/setup/pythons.sh
. tools/setup/environments.sh

# ansible-test works only in a directory .../ansible_collections/vmfleet/suspend that is no link:
# a copy of the files that git has or would take. Its cache lives in .build, too: the HOME it is given.
readonly COPY=.build/sanity/ansible_collections/vmfleet/suspend
readonly SANITY_HOME=$PWD/.build/sanity-home

copy_tree() {
    rm -rf "$COPY"
    mkdir -p "$COPY"
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
        tar -c --null -T - | tar -x -C "$COPY"
    git init --quiet "$COPY" # else it looks for the files in the checkout around it, and finds none
}

# ansible-test fetches get-pip.py, pip's bootstrap, from a web site of Ansible's own. A stand-in
# in its cache takes the pip that Python brings, and the wanted version from the user's index.
stand_in_for_get_pip() {
    local cache=$SANITY_HOME/.ansible/test/cache version
    mkdir -p "$cache"
    for version in 24_2 25_2; do # core 2.19, core 2.21
        cat >"$cache/get_pip_$version.py" <<'END'
import subprocess
import sys

wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", *wanted])
END
    done
}

# ansible-test hides the environment and the real home from the pip it runs: pip's settings of
# this user (index, proxy, certificates) go into a file where it looks.
pip_settings() {
    mkdir -p "$SANITY_HOME/.config/pip"
    (umask 077 && .venv/bin/python -m pip config list | .venv/bin/python -c '
import ast
import sys

settings = {}
for line in sys.stdin:
    name, value = line.rstrip("\n").split("=", 1)
    section, _, key = name.rpartition(".")
    if section in (":env:", "global", "install"):  # in the order in which pip prefers them
        settings.setdefault(key, ast.literal_eval(value).replace("\n", "\n  "))
print("[global]")
for key, value in settings.items():
    print(f"{key} = {value}")
' >"$SANITY_HOME/.config/pip/pip.conf")
}

sanity() { # NAME ENVIRONMENT ARGUMENTS...
    local name=$1 environment=$PWD/$2 log=$PWD/.build/sanity-$2.log search_path
    shift 2
    # Real interpreters first: the shims of a version manager may name Pythons that do not start.
    search_path=$environment/bin:$(sed 's/^[^ ]* //; s|/[^/]*$||' <<<"$pythons" | awk '!seen[$0]++' | paste -sd :):$PATH
    if (cd "$COPY" && env -u PYTHONPATH HOME="$SANITY_HOME" PATH="$search_path" LC_ALL=C.UTF-8 \
        "$environment/bin/ansible-test" sanity "$@") >"$log" 2>&1; then
        say "ok      ansible-test sanity: $name"
    else
        say "FAILED  ansible-test sanity: $name (everything it said: ${log#"$PWD"/})"
        grep -E '^(ERROR|FATAL|See documentation|[a-z0-9-]+( --python .*)?$)' "$log" || tail -n 30 "$log"
        failed=1
    fi
}

has_python() { grep -q "^$1 " <<<"$pythons"; }

pythons=$(list_pythons)
failed=0
copy_tree
stand_in_for_get_pip
pip_settings

core=$(.venv/bin/python -c 'from ansible.release import __version__ as v; print(v)')
say "ansible-test sanity (the first time it makes environments of its own, a minute or two)"
sanity "all tests, core $core" .venv
case $core in
    2.19.*) ;; # it knows Python 3.8
    *)
        if has_python 3.8 && make_oldest_environment; then
            sanity "compile and import on Python 3.8, core 2.19" .venv-oldest --python 3.8 --test compile --test import
        fi
        ;;
esac
for version in 3.8 3.9 3.10 3.11 3.12 3.13; do
    has_python "$version" || say "absent  Python $version: compile and import were not tried on it"
done
exit "$failed"
