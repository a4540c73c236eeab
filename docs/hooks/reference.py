"""Writes the reference pages from the code when the documentation is built.

mkdocs calls :func:`on_files`; nothing generated is kept in the repository, so that a page can
not disagree with the code it describes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from prometheus_client import REGISTRY
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import crdt
import edge
import streams
from streams import errors, topics
from streams.cli.main import app
from streams.settings import Settings

_ROOTS = (streams, edge, crdt)
_MODULE_RUNS_ON_IMPORT = ("__main__",)
_REASONED = {
    "DecodeError": "Payloads and records",
    "EditError": "Edits of twins",
    "WireError": "Messages of twins and commands",
    "CommandError": "Commands",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder."""
    for name, write in PAGES.items():
        page = File.generated(config, f"reference/{name}.md", content=write())
        files.append(page)
    return files


# -- settings -------------------------------------------------------------------------------


def settings_page() -> str:
    """Every setting: type, default, environment variable, meaning."""
    lines = [
        "# Settings",
        "",
        "One file, `headwater.toml` (or what `HEADWATER_CONFIG` names), and environment variables",
        "over it. An unknown key, or a value that cannot be, is an error that names file and line:",
        "`headwater config check` shows it without starting anything.",
        "",
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
    ]
    sections = []
    for name, field in Settings.model_fields.items():
        model = _section_of(field)
        if model is None:
            lines.append(_setting_row(name, field))
        else:
            sections += ["", *_section(_heading(name, field), name, model)]
    return "\n".join([*lines, *sections, ""])


def _section(heading: str, name: str, model: type[BaseModel]) -> list[str]:
    plain, nested = [], []
    for key, field in model.model_fields.items():
        inner = _section_of(field)
        if inner is None:
            plain.append(_setting_row(f"{name}.{key}", field))
        else:
            nested += ["", *_section(_heading(f"{name}.{key}", field), f"{name}.{key}", inner)]
    return [
        f"## `{heading}`",
        "",
        _paragraph(model.__doc__ or ""),
        "",
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
        *plain,
        *nested,
    ]


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _heading(name: str, field: FieldInfo) -> str:
    origin = getattr(field.annotation, "__origin__", None)
    if origin is list:
        return f"[[{name}]]"
    return f"[{name}.NAME]" if origin is dict else f"[{name}]"


def _setting_row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{_plain(field.default)}`"
    kind, meaning = _cell(_kind(field.annotation)), _cell(field.description or "")
    return f"| `{name.rpartition('.')[2]}` | {kind} | {default} | {meaning} |"


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(args[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is list:
        return f"list of {_kind(args[0])}"
    if origin in (Union, UnionType):
        return _kind(next(arg for arg in args if arg is not NoneType))
    words = {str: "text", int: "integer", float: "number", bool: "true, false", Path: "path"}
    return words.get(annotation, f"`{annotation.__name__}`")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return f'"{value}"' if value == "" else value


# -- command line ---------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Command line",
        "",
        "Every command has `--help`; results go to standard output, messages to standard error.",
        "Exit codes: 0 done, 1 the answer is no (a check failed), 2 it could not be done.",
    ]
    root = typer.main.get_command(app)
    for name, command in _commands("headwater", root):
        lines += ["", f"## `{name}`", "", _paragraph(command.help or "")]
        rows = [_option_row(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            lines += ["", "| argument or option | default | meaning |", "|---|---|---|", *rows]
    return "\n".join([*lines, ""])


def _commands(prefix: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, child in sorted(getattr(command, "commands", {}).items()):
        if getattr(child, "commands", None):
            yield from _commands(f"{prefix} {name}", child)
        else:
            yield f"{prefix} {name}", child


def _option_row(parameter: Any) -> str:
    shown = ", ".join(parameter.opts) if parameter.opts[0].startswith("-") else parameter.name
    if not parameter.opts[0].startswith("-"):
        shown = shown.upper()
    default = parameter.default
    given = "" if default in (None, False) or callable(default) else f"`{_plain(default)}`"
    needed = "required" if parameter.required else given
    return f"| `{shown}` | {needed} | {_cell(getattr(parameter, 'help', '') or '')} |"


# -- topics, metrics, errors ----------------------------------------------------------------


def topics_page() -> str:
    """Every Kafka topic and how it is made, with the shipped settings."""
    lines = [
        "# Kafka topics",
        "",
        "`headwater topics apply` makes them, `headwater topics check` compares, so that no",
        "default of a broker decides. What is in them is told in [Wire formats](../wire.md).",
        "",
        "| topic | partitions | settings |",
        "|---|---|---|",
    ]
    for spec in topics.specs(Settings.model_fields["topics"].default):
        config = ", ".join(f"`{key}={value}`" for key, value in spec.config.items())
        lines.append(f"| `{spec.name}` | {spec.partitions} | {config} |")
    return "\n".join([*lines, ""])


def metrics_page() -> str:
    """Every metric of every process."""
    import_all()
    lines = [
        "# Metrics",
        "",
        "Each process serves them in the Prometheus format at `/metrics` of its port (`[ops]`).",
        "A counter's samples end in `_total`.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    for name, metric in sorted(ours().items()):
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        kind = type(metric).__name__.lower()
        lines.append(f"| `{name}` | {kind} | {labels} | {_cell(metric._documentation)} |")
    return "\n".join([*lines, ""])


def ours() -> dict[str, Any]:
    """The registered metrics of Headwater by name."""
    found = {getattr(metric, "_name", ""): metric for metric in REGISTRY._collector_to_names}
    return {name: metric for name, metric in found.items() if name.startswith("headwater_")}


def errors_page() -> str:
    """The error tree, and every reason for which something is refused."""
    lines = [
        "# Errors",
        "",
        "Every message names what was found, where, and what was expected. A command that fails",
        "with one of these prints the message and ends with exit code 2.",
        "",
        "| error | meaning |",
        "|---|---|",
    ]
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        lines.append(f"| `{name}` | {_cell((kind.__doc__ or '').split(chr(10) * 2)[0])} |")
    lines += [
        "",
        "## Reasons of refusal",
        "",
        "The `reason` is short and stable, for filters and metrics; the `detail` beside it is a",
        "sentence for a person. Refused bytes are in `rejected`: `headwater inspect rejected`.",
    ]
    for error, heading in _REASONED.items():
        lines += ["", f"### {heading}", "", "| reason | for example | told in |", "|---|---|---|"]
        for reason, (example, module) in sorted(reasons(error).items()):
            lines.append(f"| `{reason}` | {_cell(example)} | `{module}` |")
    return "\n".join([*lines, ""])


def reasons(error: str) -> dict[str, tuple[str, str]]:
    """Reason -> (an example of the detail, module), from every place that raises *error*."""
    found: dict[str, tuple[str, str]] = {}
    for path in _sources():
        module = ".".join(path.with_suffix("").parts[-3:])
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == error
                and node.args
            ):
                example = _text_of(node.args[1]) if len(node.args) > 1 else ""
                for reason in _constants(node.args[0]):
                    found.setdefault(reason, (example, module.removeprefix("main.")))
    return found


def _sources() -> Iterator[Path]:
    for package in _ROOTS:
        for folder in package.__path__:
            yield from sorted(Path(folder).rglob("*.py"))


def _constants(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return _constants(node.body) + _constants(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _text_of(node: ast.expr) -> str:
    """A message as it is written, with what is filled in as an ellipsis."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(part) for part in node.values)
    return "…"


# -- shared ---------------------------------------------------------------------------------


def import_all() -> None:
    """Import every module, so that every metric is registered."""
    for package in _ROOTS:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(_MODULE_RUNS_ON_IMPORT):
                importlib.import_module(found.name)


def _paragraph(text: str) -> str:
    return inspect.cleandoc(text).replace("``", "`")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "settings": settings_page,
    "cli": cli_page,
    "topics": topics_page,
    "metrics": metrics_page,
    "errors": errors_page,
}
"""Page name -> what writes it."""
