# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The guest that the controller itself runs in, which it must not suspend."""

from __future__ import annotations

import uuid


def uuids_of(product_uuid: str) -> tuple[str, ...]:
    """UUIDs that a guest of this DMI product UUID may have; none where the text is no UUID, or one
    that says that there is none (SMBIOS reference specification, 7.2.1).

    Both byte orders: firmware that is older than SMBIOS 2.6 gives the first three fields in the
    other one (SMBIOS reference specification, 7.2.1).
    """
    try:
        known = uuid.UUID(product_uuid.strip())
    except ValueError:
        return ()
    if known.int in (0, (1 << 128) - 1):
        return ()
    return tuple(dict.fromkeys((str(known), str(uuid.UUID(bytes_le=known.bytes)))))
