"""What a workload's `driver:` and `runtime:` ask of nodes: constraints on what each node's agent tells of itself."""

from typing import Annotated

from pydantic import Field

from manifests.constraints import Constraint, Operator

DRIVER = "node.attributes.driver"
RUNTIME = "node.attributes.runtime."  # one attribute for each runtime that the node has: its version

DriverName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}\z", description="a driver of nodes, such as docker or oci")
]
RuntimeName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\z",
        description="an OCI runtime of nodes, such as runc, crun, runsc or kata",
    ),
]


def engine_constraints(driver: str, runtime: str) -> tuple[Constraint, ...]:
    """Return what must hold on a node; "" asks for nothing.

    >>> [str(c) for c in engine_constraints("oci", "runsc")]
    ['node.attributes.driver == oci', 'node.attributes.runtime.runsc exists']
    """
    by_driver = (Constraint(DRIVER, Operator.EQUAL, (driver,)),) if driver else ()
    return by_driver + ((Constraint(f"{RUNTIME}{runtime}", Operator.EXISTS),) if runtime else ())


def wanted_driver(constraint: Constraint) -> str:
    """Return the driver that the constraint asks for, "" if it asks for something else."""
    return constraint.values[0] if constraint.attribute == DRIVER and constraint.operator is Operator.EQUAL else ""


def wanted_runtime(constraint: Constraint) -> str:
    """Return the runtime that the constraint asks for, "" if it asks for something else."""
    is_runtime = constraint.attribute.startswith(RUNTIME) and constraint.operator is Operator.EXISTS
    return constraint.attribute.removeprefix(RUNTIME) if is_runtime else ""


def as_written(constraint: Constraint) -> str:
    """Return the constraint in the words of a manifest.

    >>> [as_written(c) for c in engine_constraints("oci", "runsc")]
    ['driver: oci', 'runtime: runsc']
    """
    if runtime := wanted_runtime(constraint):
        return f"runtime: {runtime}"
    driver = wanted_driver(constraint)
    return f"driver: {driver}" if driver else str(constraint)
