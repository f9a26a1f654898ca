"""What holds for every manifest: round trips, and that nothing but InvalidError comes out of the loader."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.allocations import Allocation, Desired, HostPort, allocation_id
from manifests.containers import Resources
from manifests.errors import InvalidError
from manifests.quantities import parse_bytes, parse_cpu, parse_duration, render_bytes, render_cpu, render_duration
from manifests.reasons import Choice, Code, Rejection, Runner
from manifests.session import Assigned, Assignments
from manifests.workloads import MODELS, WORKLOAD, Kind, Service, Workload, WorkloadRecord
from manifests.yaml_faults import YamlFault
from manifests.yaml_loader import load_text
from manifests.yaml_text import decode

names = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
cpu = st.integers(1, 10**6).map(render_cpu)
memory = st.integers(6 * 2**20, 2**45).map(render_bytes)
seconds = st.integers(100, 10**9).map(lambda ms: ms / 1000)
durations = seconds.map(render_duration)
times = st.integers(0, 4 * 10**12).map(lambda ms: ms / 1000)
texts = st.text(st.characters(exclude_categories=["C"]), max_size=20)


@st.composite
def containers(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "image": "wherry/busybox:1",
        "command": draw(st.lists(texts, max_size=3)),
        "env": draw(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), texts, max_size=3)),
        "resources": {"cpu": draw(cpu), "memory": draw(memory), "pids": draw(st.integers(1, 1000))},
        "ports": [{"name": "http", "container": draw(st.integers(1, 65535)), "publish": "auto"}],
        "health": {"readiness": {"http": {"port": "http"}, "interval": draw(durations)}},
        "ulimits": {"nofile": draw(st.sampled_from([1024, "16:unlimited", "16:32"]))},
        "capabilities": {"add": draw(st.lists(st.sampled_from(["NET_ADMIN", "CHOWN"]), max_size=2)), "drop": ["ALL"]},
        "tmpfs": [{"path": "/scratch", "size": draw(memory)}],
        "seccomp": draw(st.sampled_from(["default", "unconfined"])),
        "limits": {"cpuWeight": draw(st.integers(1, 10_000))},
        "restart": {"backoff": draw(durations), "attempts": draw(st.integers(0, 10))},
    }


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    kind = draw(st.sampled_from(list(Kind)))
    completions = {"completions": draw(st.integers(1, 9))}
    more: dict[Kind, dict[str, Any]] = {
        Kind.SERVICE: {"replicas": draw(st.integers(0, 100))},
        Kind.JOB: completions,
        Kind.CRON_JOB: {**completions, "schedule": "0 3 * * *"},
    }
    return WORKLOAD.validate_python(
        {
            "apiVersion": "wherry/v1",
            "kind": kind,
            "metadata": {"name": draw(names), "labels": draw(st.dictionaries(names, names, max_size=2))},
            "spec": draw(containers()) | more.get(kind, {}),
        }
    )


@st.composite
def records(draw: st.DrawFn) -> WorkloadRecord:
    return WorkloadRecord(
        uid=draw(names),
        version=draw(st.integers(1, 9)),
        generation=1,
        created_s=draw(times),
        workload=draw(workloads()),
    )


@st.composite
def assignments(draw: st.DrawFn) -> Assignments:
    record = draw(records())
    why = Choice(0.5, (("bestFit", 0.25),), (Runner("n2", 0.1),), (Rejection("n3", Code.CPU, "1", "0"),))
    allocation = Allocation(
        id=allocation_id(record.ref, 0, draw(st.integers(1, 10**9))),
        workload=record.ref,
        version=record.version,
        index=0,
        node=draw(names),
        desired=draw(st.sampled_from(Desired)),
        reserved=Resources(),
        ports=(HostPort(name="http", container=80, host=20_000),),
        why=why,
        created_s=draw(times),
    )
    assigned = (Assigned(allocation=allocation, workload=record.workload),)
    return Assignments(revision=draw(st.integers(1, 10**9)), is_full=draw(st.booleans()), assigned=assigned)


@given(st.integers(1, 10**17))
def test_cpu_amounts_survive_rendering(millicores: int) -> None:
    assert parse_cpu(render_cpu(millicores)) == millicores


@given(st.integers(1, 10**18 - 1))
def test_amounts_of_memory_survive_rendering(amount: int) -> None:
    assert parse_bytes(render_bytes(amount)) == amount


@given(st.integers(0, 36_500 * 86_400 * 1000))
def test_durations_survive_rendering(milliseconds: int) -> None:
    assert parse_duration(render_duration(milliseconds / 1000)) == milliseconds / 1000


def outcome(parse: Callable[[object], float], value: object) -> bool:
    """Say whether the value was parsed to an amount or refused with a sentence that a line holds."""
    try:
        return parse(value) >= 0
    except ValueError as error:
        return len(str(error)) < 250


@given(st.one_of(st.text(max_size=30), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers())))
def test_a_quantity_is_parsed_or_refused_with_a_short_sentence(value: object) -> None:
    for parse in (parse_cpu, parse_bytes, parse_duration):
        assert outcome(parse, value)


def loads_or_refuses(text: str) -> bool:
    """Say whether the text gives workloads, or else an InvalidError with problems; any other error goes through."""
    try:
        return bool(load_text(text, "fuzz.yaml"))
    except InvalidError as error:
        return bool(error.problems) and all(problem.message for problem in error.problems)


YAML_WORDS = """
a b : - ? [ ] { } , & * &a *a ! !! !!str !!int | > ' " # % @ ` ~ yes 1.10 0o7 << --- ... \\ 12:30 metadata: spec: name:
"""
yaml_words = st.sampled_from(
    [*YAML_WORDS.split(), "\n", "\n  ", "\t", " ", ": ", "- ", "apiVersion: wherry/v1\n", "kind: Job\n"]
)


@given(st.one_of(st.text(max_size=200), st.lists(yaml_words, max_size=40).map("".join)))
@settings(max_examples=400, deadline=None)
def test_any_text_loads_or_is_refused(text: str) -> None:
    assert loads_or_refuses(text)


@given(st.binary(max_size=200))
def test_any_bytes_load_or_are_refused(data: bytes) -> None:
    try:
        text = decode(data)
    except YamlFault:
        return
    assert loads_or_refuses(text)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
fields = st.sampled_from(sorted(Service.model_fields["spec"].annotation.model_json_schema()["properties"]))  # type: ignore[union-attr]  # the annotation is a model


@given(st.sampled_from(sorted(MODELS)), st.dictionaries(fields, json_values, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_value_in_any_field_loads_or_is_refused(kind: str, spec: dict[str, object]) -> None:
    manifest = {"apiVersion": "wherry/v1", "kind": kind, "metadata": {"name": "a"}, "spec": {"image": "x", **spec}}
    assert loads_or_refuses(json.dumps(manifest))


@given(workloads())
@settings(max_examples=50, deadline=None)
def test_a_manifest_as_the_api_gives_it_loads_as_the_same_workload(workload: Workload) -> None:
    manifest = json.dumps(workload.model_dump(mode="json", exclude_none=True), ensure_ascii=False)
    [loaded] = load_text(manifest, "web.json")
    assert loaded.manifest == workload


@given(records())
@settings(max_examples=50, deadline=None)
def test_records_survive_the_store(record: WorkloadRecord) -> None:
    assert WorkloadRecord.read(record.to_bytes()) == record


@given(assignments())
@settings(max_examples=50, deadline=None)
def test_assignments_survive_the_session(frame: Assignments) -> None:
    assert Assignments.read(frame.to_bytes()) == frame


def with_news(value: Any) -> Any:
    """Return the JSON value as a newer version would write it: with a field more in each of its records."""
    if isinstance(value, list):
        return [with_news(item) for item in value]
    if isinstance(value, dict):
        inner = {
            key: item if key in ("env", "labels", "configs", "devices", "images", "shares") else with_news(item)
            for key, item in value.items()
        }
        return {**inner, "newField": {"deep": [1]}}
    return value


@given(records(), assignments())
@settings(max_examples=30, deadline=None)
def test_records_of_a_newer_version_are_read(record: WorkloadRecord, frame: Assignments) -> None:
    assert WorkloadRecord.read(json.dumps(with_news(json.loads(record.to_bytes())))) == record
    assert Assignments.read(json.dumps(with_news(json.loads(frame.to_bytes())))) == frame
