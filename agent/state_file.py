"""What the agent must still know after a restart, in one small file: the cluster, assignments, and what has ended.

Containers themselves are known by their labels. Without the file nothing is killed: the runtime and the next full
assignments rebuild all but the restarts counted so far and jobs whose containers are gone.
"""

import secrets
from dataclasses import replace
from typing import Any

from pydantic import Field, ValidationError

from agent.folder import Folder
from agent.group import Group, new_group, with_members
from agent.summary import Fate
from agent.tracked import Tracked
from foundation.logs import Log
from manifests.allocations import AllocationStatus
from manifests.base import Model
from manifests.session import Assigned
from manifests.workloads import MAIN

STATE_FILE = "state.json"
ID_FILE = "agent-id"
_OF_A_CONTAINER = (
    *("status", "name", "has_begun", "round", "failures", "strikes", "healthy_since_s", "due_s", "starts"),
    *("first_start_s", "doom", "doom_message", "awaits_word", "severed_s"),
)
_log = Log(__name__)


class SavedContainer(Model):
    """One container's record. Times are those of a clock that lives as long as the boot does."""

    status: AllocationStatus
    name: str = MAIN
    has_begun: bool = False
    round: int = 1
    failures: tuple[float, ...] = ()
    strikes: int = 0
    healthy_since_s: float | None = None
    due_s: float = 0.0
    starts: tuple[float, ...] = ()
    first_start_s: float | None = None
    doom: str = ""
    doom_message: str = ""
    awaits_word: bool = False
    severed_s: float = 0.0


class SavedAllocation(SavedContainer):
    """One allocation: its only container, or all of a group as `members`; then the rest is said of them together."""

    assigned: Assigned
    is_withdrawn: bool = False
    is_admitted: bool = False
    members: tuple[SavedContainer, ...] = ()
    fate: Fate | None = None


class SavedState(Model):
    format: int = 1
    boot_id: str
    cluster: str = ""
    applied_revision: int = 0
    generation: int = 0  # of the store, to which that revision belongs
    is_fresh: bool = False  # nothing of that generation has been obeyed yet
    kept: tuple[str, ...] = ()  # allocations from before that generation
    allocations: tuple[SavedAllocation, ...] = Field(default=())


def load_state(folder: Folder, boot_id: str) -> SavedState:
    """Return what was saved. A file that can't be read is moved aside; times of another boot are dropped.

    In a new boot nothing starts before a server has had its say: this may be a clone of a machine that is alive.
    """
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
    saved = tuple(_of_another_boot(allocation) for allocation in state.allocations)
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


def _of_another_boot(saved: SavedAllocation) -> SavedAllocation:
    none = {"failures": (), "due_s": 0.0, "first_start_s": None, "healthy_since_s": None, "starts": ()}
    if saved.assigned.workload.spec.on_disconnect.stop_after_s is None:  # else the leash says so, and why
        none["awaits_word"] = True
    members = tuple(member.model_copy(update=none) for member in saved.members)
    return saved.model_copy(update={**none, "members": members})


def to_saved(group: Group) -> SavedAllocation:
    first = group.first
    of_all = _saved_fields(first) if group.is_alone else {}
    members = () if group.is_alone else group.members
    return SavedAllocation.model_construct(
        **{
            **of_all,
            "assigned": first.assigned,
            "status": group.status,
            "is_withdrawn": first.is_withdrawn,
            "is_admitted": first.is_admitted,
            "members": tuple(SavedContainer.model_construct(**_saved_fields(member)) for member in members),
            "fate": group.fate,
        }
    )


def to_group(saved: SavedAllocation) -> Group:
    """Return the record as it was; its containers are yet to be seen, and their manager may have been restarted."""
    known = {member.name: member for member in saved.members} or {MAIN: saved}
    fresh = new_group(saved.assigned)
    members = tuple(_restored(member, known.get(member.name), saved) for member in fresh.members)
    return with_members(Group(saved.status, ()), members, saved.fate)


def _saved_fields(tracked: Tracked) -> dict[str, Any]:
    return {name: getattr(tracked, name) for name in _OF_A_CONTAINER}


def _restored(fresh: Tracked, known: SavedContainer | None, saved: SavedAllocation) -> Tracked:
    fields = {} if known is None else {name: getattr(known, name) for name in _OF_A_CONTAINER}
    whole = {"is_withdrawn": saved.is_withdrawn, "is_admitted": saved.is_admitted, "has_lost_sight": True}
    return replace(fresh, **{**fields, **whole})
