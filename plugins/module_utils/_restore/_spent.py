# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Why an image is spent, told to whoever wants to restore it once more: pure."""

from __future__ import annotations

import typing as t

from .._image_record import SavedImage


def why_spent(saved: SavedImage, *, holder_lives: bool, changed: t.Sequence[str] | None) -> str:
    """One or two sentences. ``holder_lives``: the QEMU it was loaded into still does; ``changed``:
    what differs on the guest's disks since the save, None where nobody can tell."""
    if saved.spent_by is not None:
        return f"It was marked so by a {saved.spent_by}."
    holder = saved.loaded_into
    if holder is None:
        return "What marked it is not recorded."
    where = f"the QEMU process {holder.pid}"
    if holder_lives:
        return f"It was restored into {where}, which holds the guest now."
    if saved.continued:
        return f"It was restored into {where}, where the guest ran; that QEMU has ended since."
    begun = (
        f"A restore marked it, to let the guest run in {where}, which was never seen to run it and "
        "has ended (a crash between the two, perhaps of the host)."
    )
    if changed is None:
        return f"{begun} Whether its disks were written to is not known."
    if changed:
        return f"{begun} Its disks have changed since the save: {'; '.join(changed)}."
    return (
        f"{begun} Its disks are exactly as they were at the save, so that nothing was lost: with "
        "allow set to spent it can be restored."
    )
