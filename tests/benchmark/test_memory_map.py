# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the memory map of a large image takes: metadata, not RAM."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from ansible_collections.vmfleet.suspend.tests.support.images import PAGE, Block, write_mapped

GIB = 1 << 30
RUNS = 9
READ = """
import sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.vmfleet.suspend.plugins.module_utils._image_info import list_images
(image,) = list_images(sys.argv[2], read_memory_map=True).images
assert image["present_pages"] == int(sys.argv[3]), image
"""


def median_milliseconds(*command):
    times = []
    for _run in range(RUNS):
        began = time.perf_counter()
        subprocess.run(command, check=True)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def test_the_memory_map_of_a_64_gib_image(tmp_path, capsys):
    page_count = 64 * GIB // PAGE
    # A page in every 32 MiB: holes and data alternate as in a guest that is mostly idle.
    pages = dict.fromkeys(range(0, page_count, 8192), b"\xa5" * PAGE)
    path = tmp_path / "image"
    write_mapped(path, [Block("pc.ram", page_count, pages)])
    collections = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    nothing = median_milliseconds(sys.executable, "-c", "")
    imports = median_milliseconds(sys.executable, "-c", READ.partition("(image,)")[0], collections)
    whole = median_milliseconds(sys.executable, "-c", READ, collections, path, str(len(pages)))
    with capsys.disabled():
        print(
            f"\nmemory map of 64 GiB, {len(pages)} extents: {whole - nothing:.0f} ms beyond the "
            f"start of Python ({nothing:.0f} ms), of which imports {imports - nothing:.0f} ms"
        )
