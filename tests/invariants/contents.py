"""S17: the content of a config is found nowhere but in its own records, and in the containers that name it.

A container gets exactly the content that its version names.
"""

from collections.abc import Iterator, Mapping, Sequence

from agent.ownership import ALLOCATION, VERSION
from control_plane import keys
from tests.invariants.records import Records, Written
from tests.invariants.steps import Breach, Step

LEAST_CHARACTERS = 12  # shorter ones may be anywhere by chance


def contents_stay_home(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S17: no record but a config's own tells its content: no status, event, or note of an end."""
    contents = {data for data in records.contents_ever.values() if len(data) >= LEAST_CHARACTERS}
    for change in step.changes if contents else ():
        if change.entry is not None and not change.key.startswith((keys.CONFIGS, keys.CONFIG_VERSIONS)):
            told = [data for data in contents if data.encode() in change.entry.value]
            if told:
                yield Breach("S17", f"{change.key} tells the content of a config")


def environment(records: Records, labels: Mapping[str, str], env: Mapping[str, str]) -> Iterator[Breach]:
    """S17: a container that starts has the contents that its version names, as variables, and none besides."""
    allocation = records.ever.get(labels.get(ALLOCATION, ""))
    version = records.versions_ever.get((allocation.workload.uid, int(labels[VERSION]))) if allocation else None
    if allocation is None or version is None:
        return
    members = (*version.workload.spec.members.values(), *version.workload.spec.init_containers)
    mounts = [(mount.name, mount.env) for member in members for mount in member.configs if mount.env is not None]
    namespace = allocation.workload.namespace
    named = set()
    for config, variable in mounts:
        number = version.configs.get(config, 0)
        content = records.contents_ever.get((keys.config_id(namespace, config), number), "")
        named.add(content)
        if env.get(variable, content) != content:
            yield Breach("S17", f"{allocation.id} has other content of {config} than version {number}")
    strange = {data for data in records.contents_ever.values() if len(data) >= LEAST_CHARACTERS} - named
    for name, value in env.items():
        if any(data in value for data in strange):
            yield Breach("S17", f"{allocation.id} has in {name} a content that it doesn't name")
    if len(members) == 1 and any(variable not in env for _, variable in mounts):
        yield Breach("S17", f"{allocation.id} lacks a config's content")
