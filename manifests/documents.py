"""One document, already parsed, to a model: the same rules for YAML files and for JSON bodies."""

from collections.abc import Mapping

from pydantic import ValidationError

from manifests.errors import InvalidError
from manifests.problems import Fault, Problem, counted, faults_of, found, listing, nearest
from manifests.workloads import API_VERSION, MODELS, Document, Kind, Workload

_KINDS = ", ".join(MODELS)
_OTHER_KINDS = {
    "Secret": "there is no Secret in this version: give the workload its secrets by other means, not in a manifest",
    "Deployment": "a Deployment is called Service here",
    "ReplicaSet": "a ReplicaSet is called Service here",
    "StatefulSet": "there is no StatefulSet: a Service has replicas, but no volumes or names of their own",
    "DaemonSet": "a DaemonSet is called Daemon here",
    "Pod": "there is no Pod: write a Service with replicas: 1, or a Job",
    "Ingress": "there is no Ingress: publish a port of the workload with ports: [{container: 80, publish: auto}]",
    "ConfigMap": "a ConfigMap is called Config here, and holds one text",
}


def workload_of(data: object, *, document: int = 0) -> Workload:
    """Return the workload that a JSON document describes. Raises InvalidError with all its problems."""
    read = read_document(data)
    if isinstance(read, list):
        raise invalid([fault.problem(document) for fault in read])
    if not isinstance(read, Workload):
        raise invalid([Problem(document, "kind", f"a {read.kind} is no workload")])
    return read


def read_document(data: object) -> Document | list[Fault]:
    """Return what the document describes, or everything that is wrong with the document."""
    if not isinstance(data, Mapping):
        hint = ": separate several manifests with lines of ---" if isinstance(data, list) else ""
        return [Fault((), f"a manifest is a map of fields that begins with apiVersion; found {found(data)}{hint}")]
    head = _head_faults(data)
    model = MODELS.get(kind) if isinstance(kind := data.get("kind"), str) else None
    if model is None:
        return head
    try:
        # by_name=False: the names that the code uses inside (cpu_m) are no part of the language
        workload = model.model_validate(data, by_name=False, by_alias=True)
    except ValidationError as error:
        named = {fault.path for fault in head}
        return [*head, *(f for f in faults_of(error, model) if f.path not in named)]
    return head or workload


def invalid(problems: list[Problem], where: str = "") -> InvalidError:
    """Return the error that carries all these problems."""
    place = where or "the manifest"
    return InvalidError(f"{counted(problems)} in {place}", why=listing(problems), problems=problems)


def _head_faults(data: Mapping[str, object]) -> list[Fault]:
    """Return what is wrong with the fields that every kind has."""
    faults = []
    if "apiVersion" not in data:
        faults.append(Fault(("apiVersion",), f"is missing: write apiVersion: {API_VERSION}"))
    elif data["apiVersion"] != API_VERSION:
        faults.append(Fault(("apiVersion",), f"must be {API_VERSION}; found {found(data['apiVersion'])}"))
    if "kind" not in data:
        faults.append(Fault(("kind",), f"is missing: write one of {_KINDS}"))
    elif data["kind"] not in list(MODELS):
        faults.append(Fault(("kind",), _unknown_kind(data["kind"])))
    if "spec" in data and data["spec"] is None:
        least = "at least the image" if data.get("kind") in list(Kind) else "them"
        faults.append(Fault(("spec",), f"has no fields: write {least} below it, indented"))
    spec = data.get("spec")
    if isinstance(spec, Mapping) and data.get("kind") in list(Kind) and not {"image", "containers"} & spec.keys():
        faults.append(Fault(("spec", "image"), "is missing"))
    metadata = data.get("metadata")
    if metadata is None:
        faults.append(Fault(("metadata",), "is missing: write metadata: {name: NAME}"))
    elif isinstance(metadata, Mapping) and "name" not in metadata:
        faults.append(Fault(("metadata", "name"), "is missing: everything has a name"))
    return faults


def _unknown_kind(kind: object) -> str:
    if isinstance(kind, str) and kind in _OTHER_KINDS:
        return f"{_OTHER_KINDS[kind]}; the kinds are {_KINDS}"
    near = nearest(kind, list(MODELS)) if isinstance(kind, str) else None
    hint = f"; did you mean '{near}'?" if near else ""
    return f"must be one of {_KINDS}; found {found(kind)}{hint}"
