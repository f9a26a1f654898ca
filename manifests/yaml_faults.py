"""libyaml's complaints in words that say what to mend. Knows nothing of manifests."""

import yaml


class YamlFault(Exception):
    """The text can't be read as YAML within the bounds, from this line on (0: the whole of it)."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def explain(error: yaml.MarkedYAMLError, lines: list[str]) -> YamlFault:
    """Return the fault with line, column and a sentence."""
    mark = error.problem_mark or error.context_mark
    at, column = (mark.line, mark.column) if mark is not None else (0, 0)
    tab = _indenting_tab(lines, at)
    if tab is not None:
        return YamlFault(
            tab + 1, f"column {lines[tab].index(chr(9)) + 1}: a tab: indent with spaces, YAML allows no tabs"
        )
    began = error.context_mark.line + 1 if error.context_mark is not None else 0
    return YamlFault(at + 1, f"column {column + 1}: {_sentence(error, began, _character(lines, at, column))}")


def _sentence(error: yaml.MarkedYAMLError, began: int, character: str) -> str:
    problem, context = error.problem or "", error.context or ""
    for words, sentence in _SENTENCES:
        if words in problem or words in f"{context}: {problem}":
            return sentence.format(began=began, character=character)
    return f"not YAML: {problem}" + (f" ({context} that began in line {began})" if context and began else "")


_SENTENCES = (
    ("mapping values are not allowed", "a ':' can't stand here: the line is indented wrongly, or a value that contains "
     "': ' needs quotes"),
    ("could not find expected ':'", "a ':' and a space are missing after the key in line {began}, or the line is "
     "indented wrongly"),
    ("block mapping: did not find expected key", "the indentation doesn't fit, or a quote or bracket ends too early: "
     "fields of the map that began in line {began} must all begin in the same column"),
    ("did not find expected '-' indicator", "the indentation doesn't fit: the entries of the list that began in line "
     "{began} must all begin with '-' in the same column"),
    ("block sequence entries are not allowed", "a '-' can't begin a list here: put it on a line of its own, indented"),
    ("did not find expected ',' or ']'", "the list that began with '[' in line {began} lacks a ',' or its ']'"),
    ("did not find expected ',' or '}'", "the map that began with '{{' in line {began} lacks a ',' or its '}}'"),
    ("found unexpected end of stream", "the quote that opens in line {began} is never closed"),
    ("found unexpected document indicator", "the quote that opens in line {began} is never closed"),
    ("found unknown escape character", "in double quotes a backslash begins an escape, and this is none: "
     "use single quotes, or two backslashes"),
    ("invalid Unicode character escape code", "this escape is no character: write the character itself"),
    ("found character that cannot start any token", "a value can't begin with '{character}': put it in quotes"),
    ("did not find expected alphabetic or numeric character", "a value can't begin with '&' or '*' unless it names an "
     "anchor: put it in quotes"),
    ("undefined tag handle", "'!' begins a tag, and there are none in manifests: put the value in quotes"),
    ("did not find expected <document start>", "the text goes on after the document's end: begin the next one "
     "with ---, or indent the line"),
    ("unknown directive name", "a line that begins with '%' is a directive, and there are none in manifests"),
    ("incompatible YAML document", "only YAML 1.1 and 1.2 can be read: leave the %YAML line out"),
    ("exceeded maximum nesting depth", "is nested too deep"),
)  # fmt: skip


def _indenting_tab(lines: list[str], at: int) -> int | None:
    """Return the number of a line, near the complaint, that is indented with a tab."""
    for number in (at, at - 1, at + 1):
        if 0 <= number < len(lines):
            line = lines[number]
            if "\t" in line[: len(line) - len(line.lstrip())] and line.strip():
                return number
    return None


def _character(lines: list[str], at: int, column: int) -> str:
    line = lines[at] if at < len(lines) else ""
    return line[column] if column < len(line) else "?"
