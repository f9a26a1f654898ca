"""What the agent must still know after a restart, in one small file: the cluster, assignments, and what has ended.

Containers themselves are known by their labels. Without the file nothing is killed: the runtime and the next full
assignments rebuild all but the restarts counted so far and jobs whose containers are gone.
"""

import secrets

from pydantic import Field, ValidationError

from agent.folder import Folder
from agent.tracked import Tracked
from foundation.logs import Log
from manifests.allocations import AllocationStatus
from manifests.base import Model
from manifests.session import Assigned

STATE_FILE = "state.json"
ID_FILE = "agent-id"
_log = Log(__name__)


class SavedAllocation(Model):
    """One record. Times are those of a clock that lives as long as the boot does."""

    assigned: Assigned
    status: AllocationStatus
    is_withdrawn: bool = False
    is_admitted: bool = False
    failures: tuple[float, ...] = ()
    due_s: float = 0.0
    first_start_s: float | None = None
    doom: str = ""
    doom_message: str = ""
    awaits_word: bool = False
    severed_s: float = 0.0


class SavedState(Model):
    format: int = 1
    boot_id: str
    cluster: str = ""
    applied_revision: int = 0
    allocations: tuple[SavedAllocation, ...] = Field(default=())


def load_state(folder: Folder, boot_id: str) -> SavedState:
    """Return what was saved. A file that can't be read is moved aside; times of another boot are dropped."""
    try:
        state = SavedState.read(folder.read(STATE_FILE))
    except FileNotFoundError:
        return SavedState(boot_id=boot_id)
    except (ValidationError, ValueError) as error:
        aside = folder.move_aside(STATE_FILE)
        _log.error("state file was damaged and moved aside", folder=folder, aside=aside, error=str(error)[:200])
        return SavedState(boot_id=boot_id)
    if state.boot_id == boot_id:
        return state
    timeless = {"failures": (), "due_s": 0.0, "first_start_s": None}
    saved = tuple(allocation.model_copy(update=timeless) for allocation in state.allocations)
    return state.model_copy(update={"boot_id": boot_id, "allocations": saved})


def save_state(folder: Folder, state: SavedState) -> None:
    folder.write(STATE_FILE, state.to_bytes())


def load_agent_id(folder: Folder) -> str:
    """Return the id of this data folder, made on its first day. Apart from the state, which may be lost."""
    try:
        return folder.read(ID_FILE).decode().strip()
    except FileNotFoundError:
        folder.write(ID_FILE, f"{secrets.token_hex(8)}\n".encode())
        return folder.read(ID_FILE).decode().strip()


def to_saved(tracked: Tracked) -> SavedAllocation:
    return SavedAllocation.model_construct(
        assigned=tracked.assigned,
        status=tracked.status,
        is_withdrawn=tracked.is_withdrawn,
        is_admitted=tracked.is_admitted,
        failures=tracked.failures,
        due_s=tracked.due_s,
        first_start_s=tracked.first_start_s,
        doom=tracked.doom,
        doom_message=tracked.doom_message,
        awaits_word=tracked.awaits_word,
        severed_s=tracked.severed_s,
    )


def to_tracked(saved: SavedAllocation) -> Tracked:
    """Return the record as it was; its container is yet to be seen, and its manager may have been restarted."""
    return Tracked(
        assigned=saved.assigned,
        status=saved.status,
        is_withdrawn=saved.is_withdrawn,
        is_admitted=saved.is_admitted,
        has_lost_sight=True,
        failures=saved.failures,
        due_s=saved.due_s,
        first_start_s=saved.first_start_s,
        doom=saved.doom,
        doom_message=saved.doom_message,
        awaits_word=saved.awaits_word,
        severed_s=saved.severed_s,
    )
