"""The YAML loader: what it says about faulty manifests, where, and what it refuses to spend time on."""

import io
import time
import tracemalloc
from pathlib import Path

import pytest

from manifests.errors import InvalidError, NotFoundError
from manifests.workloads import Service
from manifests.yaml_loader import load_files, load_text

HEAD = """apiVersion: wherry/v1
kind: Service
metadata: {name: web}
spec:
  image: wherry/busybox:1
"""


def problems(text: str) -> list[str]:
    """Return what is wrong with the text, one line each."""
    with pytest.raises(InvalidError) as caught:
        load_text(text, "web.yaml")
    return caught.value.why.splitlines()


def test_documents_load_in_order_and_know_their_lines() -> None:
    second = HEAD.replace("name: web", "name: api")
    loaded = load_text(f"# two\n{HEAD}---\n{second}---\n", "web.yaml")
    assert [(one.workload.metadata.name, one.where) for one in loaded] == [("web", "web.yaml:2"), ("api", "web.yaml:8")]


def test_all_problems_of_all_documents_come_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        load_text(f"{HEAD}  replica: 3\n---\n{HEAD}  replicas: three\n", "web.yaml")
    assert caught.value.what == "2 problems in web.yaml"
    assert caught.value.why.splitlines() == [
        "web.yaml:6: spec.replica: unknown field; did you mean 'replicas'?",
        "web.yaml:13: spec.replicas: must be a whole number; found 'three'",
    ]
    assert [(p.document, p.path, p.line) for p in caught.value.problems] == [
        (0, "spec.replica", 6),
        (1, "spec.replicas", 13),
    ]


@pytest.mark.parametrize(
    ("addition", "problem"),
    [
        ("  replicas: '3'", "6: spec.replicas: must be a whole number; found '3': write it without quotes"),
        ("  cpu: 1", "6: spec.cpu: unknown field here; it belongs in spec.resources"),
        ("  name: a", "6: spec.name: unknown field here; it belongs in metadata"),
        ("  ports:\n    - container: 0", "7: spec.ports[0].container: must be at least 1; found 0"),
        (
            "  ports: [{container: 80, publish: 0}]",
            "6: spec.ports[0].publish: must be a host port from 1 to 65535, or auto; found 0",
        ),
        ("  command: sh", "6: spec.command: must be a list; found 'sh': write [sh]"),
        ("  args: [sleep, 60]", "6: spec.args[1]: must be text; found 60: put it in quotes"),
        ("  env:\n    V: 1.10", "7: spec.env.V: an environment variable is text: put 1.10 in quotes"),
        (
            "  pull: allways",
            "6: spec.pull: must be 'always', 'ifMissing' or 'never'; found 'allways'; did you mean 'always'?",
        ),
        (
            "  stop: {signal: TERM}",
            "6: spec.stop.signal: must be a signal's name, such as SIGTERM or SIGINT; found 'TERM'",
        ),
        ("  stop: {grace: 2h}", "6: spec.stop.grace: must be at most 1h; found 2h"),
        ("  limits: {cpu: 10m}", "6: spec.limits.cpu: is below the reservation in resources: raise this one or lower"),
        ("  resources: 3", "6: spec.resources: must be a map of fields; found 3"),
        ("  image: again", "5: spec.image: stands twice, in lines 5 and 6: remove one"),
    ],
)
def test_a_fault_is_told_in_the_manifests_words(addition: str, problem: str) -> None:
    [line] = problems(f"{HEAD}{addition}\n")
    assert line.startswith(f"web.yaml:{problem}")


def test_an_unknown_field_with_nothing_near_is_answered_with_the_known_ones() -> None:
    [line] = problems(f"{HEAD}  stop: {{wibble: 1}}\n")
    assert line == "web.yaml:6: spec.stop.wibble: unknown field; the fields here are: signal, grace"


def test_names_that_only_the_code_uses_are_no_fields() -> None:
    [line] = problems(f"{HEAD}  resources: {{cpu_m: 100m}}\n")
    assert "spec.resources.cpu_m: unknown field" in line


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("on", "'on' is true to some readers of YAML and text to others: write true, or put it in quotes"),
        ("No", "'No' is false to some readers"),
        ("0o12", "is a number that readers of YAML disagree on"),
        ("012", "is a number that readers of YAML disagree on"),
        ("1_000", "is a number that readers of YAML disagree on"),
        ("1e3", "is a number that readers of YAML disagree on"),
        (".inf", "is a number that readers of YAML disagree on"),
        ("12:30", "'12:30' is a number in base 60 to some readers of YAML: put it in quotes"),
    ],
)
def test_words_on_which_readers_of_yaml_disagree_are_refused_unless_quoted(value: str, words: str) -> None:
    [line] = problems(f"{HEAD}  env: {{A: {value}}}\n")
    assert words in line
    [loaded] = load_text(f"{HEAD}  env: {{A: '{value}'}}\n", "web.yaml")
    assert loaded.workload.spec.env == {"A": value}


def test_plain_text_that_only_looks_special_is_text() -> None:
    [loaded] = load_text(f"{HEAD}  env: {{DAY: 2024-01-01, N: 8080, no: x, PORTS: '80:80'}}\n", "web.yaml")
    assert loaded.workload.spec.env == {"DAY": "2024-01-01", "N": "8080", "no": "x", "PORTS": "80:80"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: Service\nmetadata: {name: a}\nspec: {image: x}", "apiVersion: is missing: write apiVersion: wherry/v1"),
        ("apiVersion: wherry/v1\nmetadata: {name: a}", "kind: is missing: write one of Service, Daemon, Job"),
        ("apiVersion: wherry/v1\nkind: Job\nspec: {image: x}", "metadata: is missing: write metadata: {name: NAME}"),
        (
            "apiVersion: wherry/v1\nkind: Job\nmetadata: {}\nspec: {image: x}",
            "metadata.name: is missing: everything has a name",
        ),
        ("apiVersion: wherry/v1\nkind: Job\nmetadata: {name: a}", "spec: is missing"),
        (
            "apiVersion: v1\nkind: Job\nmetadata: {name: a}\nspec: {image: x}",
            "apiVersion: must be wherry/v1; found 'v1'",
        ),
        (
            "apiVersion: wherry/v1\nkind: Servise\nmetadata: {name: a}",
            "kind: must be one of Service, Daemon, Job, CronJob, Config, Namespace, Cluster; found 'Servise'; did you ",
        ),
        ("apiVersion: wherry/v1\nkind: ConfigMap\nmetadata: {name: a}", "kind: a ConfigMap is called Config here"),
        ("apiVersion: wherry/v1\nkind: Secret\nmetadata: {name: a}", "kind: there is no Secret in this version"),
        ("apiVersion: wherry/v1\nkind: Deployment\nmetadata: {name: a}", "kind: a Deployment is called Service here"),
    ],
)  # fmt: skip
def test_what_every_manifest_begins_with_is_asked_for(text: str, problem: str) -> None:
    [line] = problems(text)
    assert line.split(": ", 1)[1].startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{HEAD}\treplicas: 3\n", "6: column 1: a tab: indent with spaces"),
        (f"{HEAD}   replicas: 3\n", "6: column 12: a ':' can't stand here: the line is indented wrongly"),
        (f"{HEAD}  - a\n", "6: column 3: the indentation doesn't fit"),
        (f"{HEAD}  command: [a\n", "7: column 1: the list that began with '[' in line 6 lacks a ',' or its ']'"),
        (f"{HEAD}  user: 'a\n", "7: column 1: the quote that opens in line 6 is never closed"),
        (f"{HEAD}  user: @a\n", "6: column 9: a value can't begin with '@': put it in quotes"),
        (f"{HEAD}  user: *a\n", "6: the alias *a names nothing"),
        (f"{HEAD}  args: &a [*a]\n", "6: the alias *a stands inside what it names"),
        (f"{HEAD}  env: {{<<: {{A: b}}}}\n", "6: spec.env: has a merge key (<<) in line 6"),
        (f"{HEAD}  user: !!python/name:os.system x\n", "6: spec.user: has the tag !!python/name:os.system"),
        ("- a\n", "1: a manifest is a map of fields that begins with apiVersion; found a list: separate"),
        ("a: \x1b[2J\n", "1: column 4: the character U+001B is not allowed"),
        ("a: \u202eb\n", "1: column 4: the character U+202E is not allowed"),
    ],
)
def test_text_that_is_no_manifest_is_told_with_its_place(text: str, problem: str) -> None:
    assert problems(text)[0].startswith(f"web.yaml:{problem}")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n---\n"])
def test_an_empty_file_is_refused(text: str) -> None:
    assert problems(text) == ["web.yaml: is empty: a manifest begins with apiVersion: wherry/v1"]


def test_problems_before_broken_yaml_are_told_as_well() -> None:
    lines = problems(f"{HEAD}  replica: 3\n---\na: [\n")
    assert [line.split(": ")[0] for line in lines] == ["web.yaml:6", "web.yaml:9"]


def test_a_workload_that_stands_twice_is_refused_with_both_lines() -> None:
    assert problems(f"{HEAD}---\n{HEAD}") == [
        "web.yaml:7: metadata.name: service default/web stands already at web.yaml:1: remove one"
    ]


def test_an_alias_stands_for_a_whole_value() -> None:
    [loaded] = load_text(f"{HEAD}  command: &c [a, b]\n  args: *c\n", "web.yaml")
    assert loaded.workload.spec.args == ("a", "b")


def _alias_bomb() -> str:
    levels = [f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(["a: &a [x,x,x,x,x,x,x,x,x]", *levels])


@pytest.mark.parametrize(
    "bomb",
    [
        _alias_bomb(),
        "[" * 4000,
        "[" * 1_000_000,
        "{a: " * 4000,
        "- " * 100_000,
        f"{HEAD}  replicas: {'9' * 5000}\n",
        f"{HEAD}  resources: {{memory: 1e999999999}}\n",
        f"{HEAD}  image: y\n",
        "!!python/object/apply:os.system [id]",
        "x" * 2_000_000,
        "---\na: b\n" * 1001,
        f"a: &a x\nb: [{'*a,' * 2000}]",
    ],
    ids=[
        "aliases",
        "[x4000",
        "[x1M",
        "{x4000",
        "dashes",
        "digits",
        "exponent",
        "duplicate",
        "python",
        "2MB",
        "documents",
        "many-aliases",
    ],
)
def test_a_bomb_is_refused_in_no_time_and_little_memory(bomb: str) -> None:
    def defuse() -> None:
        with pytest.raises(InvalidError):
            load_text(bomb, "bomb.yaml")

    began = time.process_time()
    defuse()
    cpu_s = time.process_time() - began
    tracemalloc.start()
    try:
        defuse()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert cpu_s < 0.5  # some milliseconds when nothing disturbs; what goes off takes seconds
    assert peak < 20_000_000


def test_a_document_with_thousands_of_faults_is_answered_with_the_first_and_a_count() -> None:
    lines = problems(HEAD + "".join(f"  x{i}: 1\n" for i in range(5000)))
    assert len(lines) == 51
    assert "has 4900 more problems" in lines[0]


def test_files_and_directories_load_in_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(HEAD.replace("name: web", "name: b"))
    (tmp_path / "a.yaml").write_text("\ufeff" + HEAD.replace("name: web", "name: a"))
    (tmp_path / "notes.txt").write_text("no manifest")
    loaded = load_files([str(tmp_path)])
    assert [one.workload.metadata.name for one in loaded] == ["a", "b"]
    assert loaded[1].where == f"{tmp_path / 'b.yml'}:1"


def test_standard_input_is_called_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(HEAD.encode())))
    [one] = load_files(["-"])
    assert isinstance(one.workload, Service)
    assert one.where == "stdin:1"


def test_problems_of_several_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{HEAD}  replica: 1\n")
    (tmp_path / "b.yaml").write_bytes(b"a: b\nc: \xff\n")
    with pytest.raises(InvalidError) as caught:
        load_files([str(tmp_path)])
    assert caught.value.what == "2 problems in 2 files"
    assert f"{tmp_path / 'b.yaml'}:2: is not UTF-8 text: byte 9 is 0xff" in caught.value.why


def test_a_workload_that_two_files_describe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / "b.yaml").write_text(HEAD)
    with pytest.raises(InvalidError, match=r"stands already at .*a\.yaml:1"):
        load_files([str(tmp_path)])


def test_a_missing_file_and_an_empty_directory_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        load_files([str(tmp_path / "none.yaml")])
    with pytest.raises(InvalidError, match="there are no manifests in"):
        load_files([str(tmp_path)])


def test_what_never_ends_is_read_no_further_than_allowed() -> None:
    with pytest.raises(InvalidError, match="is larger than 1 MiB"):
        load_files(["/dev/zero"])
