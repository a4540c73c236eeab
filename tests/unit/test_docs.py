"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import jsonschema
import orjson
import pytest
import typer.main

from streams import errors, topics
from streams.alerts.sender import body_of
from streams.cli.main import app
from streams.core.alert_states import Sample, observe, pass_time
from streams.core.rules import AnomalyRule, Series
from streams.settings import Settings
from tests.documents import DOCS, blocks

ROOT = DOCS.parent


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", DOCS / "hooks" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fields(model, prefix=""):
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((k for k in kinds if hasattr(k, "model_fields")), None)
        if inner is not None:
            yield from fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def test_every_setting_has_its_line_in_the_reference(reference):
    page = reference.settings_page()
    undescribed = [name for name, field in fields(Settings) if not field.description]
    assert undescribed == []
    missing = [
        name for name, _ in fields(Settings) if f"| `{name.rpartition('.')[2]}` |" not in page
    ]
    assert missing == []


def test_every_command_is_in_the_reference(reference):
    page = reference.cli_page()
    for name in typer.main.get_command(app).commands:
        assert f"## `headwater {name}" in page


def test_every_metric_error_and_topic_is_in_the_reference(reference):
    metrics_page, errors_page = reference.metrics_page(), reference.errors_page()
    assert len(reference.ours()) > 40
    assert all(f"`{name}`" in metrics_page for name in reference.ours())
    assert errors.DecodeError.__name__ in errors_page
    assert "`malformed-json`" in errors_page
    assert "`too-big`" in errors_page
    for spec in topics.specs(Settings().topics):
        assert f"| `{spec.name}` | {spec.partitions} |" in reference.topics_page()


def test_metrics_that_the_operations_page_names_exist(reference):
    reference.import_all()
    named = set(re.findall(r"headwater_\w+", (DOCS / "operations.md").read_text()))
    assert named
    assert named <= set(reference.ours())


def alerts():
    rule = AnomalyRule("anomaly", "warning", score_over=5.0, hold_ms=0, resolve_ms=1_000)
    series = Series("t", "s", "d", "m")
    high = Sample(10, 11, 12, 13, 95.0, 48.0, 71.0, 0.5)
    low = Sample(20, 21, 22, 23, 71.0, 0.1, 71.0, 0.5)
    standing, fired = observe(rule, series, None, high)
    standing, _ = observe(rule, series, standing, low)
    _, resolved = pass_time(rule, standing, 10_000)
    return [*fired, *resolved]


def test_what_is_sent_and_what_is_shown_have_the_published_schema():
    schema = orjson.loads((DOCS / "alert.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    example = next(b.code for b in blocks("webhooks.md") if b.language == "json")
    jsonschema.validate(orjson.loads(example), schema)
    sent = [orjson.loads(orjson.dumps(body_of({"alert": a.as_json()}, 14))) for a in alerts()]
    assert [body["type"] for body in sent] == ["alert.firing", "alert.resolved"]
    for body in sent:
        jsonschema.validate(body, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**sent[0], "more": 1}, schema)


def test_every_path_that_readme_and_docs_name_exists():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    wanted = re.compile(
        r"`((?:streams|crdt|edge|models|tests|docs|benchmarks|examples|deploy)/[\w./-]+)`"
    )
    for page in pages:
        for name in wanted.findall(page.read_text()):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_no_page_or_source_names_an_address_of_a_machine_or_registry():
    told = re.compile(r"/work/|/root/|pypi\.org/simple|files\.pythonhosted")
    for path in [*ROOT.glob("*.*"), *DOCS.rglob("*.md"), *Path(ROOT / "streams").rglob("*.py")]:
        if path.is_file():
            assert not told.search(path.read_text(errors="replace")), path
