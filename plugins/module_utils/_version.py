# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The release that this code belongs to; a test holds it equal to galaxy.yml."""

from __future__ import annotations

COLLECTION_VERSION = "1.0.0"
