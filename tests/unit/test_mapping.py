from __future__ import annotations

import pytest

from streams.errors import DecodeError, SettingsError
from streams.intake.mapping import TopicMap
from streams.settings import Mapping


def test_levels_of_the_topic_name_tenant_site_device_and_metric() -> None:
    topics = TopicMap(
        [Mapping(topic="{tenant}/{site}/+/{device}/{metric}", tenant="{tenant}", site="{site}")]
    )
    source = topics.source("acme/north/line4/press7/temperature")
    assert source is not None
    found = (source.tenant, source.site, source.device, source.metric)
    assert found == ("acme", "north", "press7", "temperature")


def test_fields_may_combine_captured_names() -> None:
    topics = TopicMap([Mapping(topic="f/{site}/{device}", site="{site}", device="{site}-{device}")])
    source = topics.source("f/north/7")
    assert source is not None
    assert source.device == "north-7"


def test_the_first_matching_mapping_counts() -> None:
    topics = TopicMap(
        [
            Mapping(topic="a/special", device="special"),
            Mapping(topic="a/{device}"),
            Mapping(topic="a/#", device="other"),
        ]
    )
    devices = []
    for topic in ("a/special", "a/plain", "a/b/c", "a"):
        source = topics.source(topic)
        assert source is not None
        devices.append(source.device)
    assert devices == ["special", "plain", "other", "other"]


def test_wildcards_leave_the_brokers_own_topics_alone() -> None:
    topics = TopicMap([Mapping(topic="#", device="any"), Mapping(topic="+/x", device="any")])
    with pytest.raises(DecodeError, match="unknown-topic"):
        topics.source("$SYS/x")


def test_the_native_topic_is_mapped_without_settings() -> None:
    source = TopicMap([]).source("hw/v1/acme/north/up")
    assert source is not None
    assert (source.tenant, source.site, source.format) == ("acme", "north", "frame")


@pytest.mark.parametrize("rest", ["ack", "twin/up", "twin/down", "cmd", "cmd/status", "backfill"])
def test_native_topics_of_other_processes_are_nobodys_error(rest: str) -> None:
    assert TopicMap([]).source(f"hw/v1/acme/north/{rest}") is None


def test_an_unmapped_topic_is_refused_and_says_how_to_map_it() -> None:
    topics = TopicMap([Mapping(topic="a/{device}")])
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DecodeError, match="mappings") as caught:
            topics.source("b/c")
        assert caught.value.reason == "unknown-topic"


@pytest.mark.parametrize(
    "device", ["", "x" * 129, "tab\there", "null\0", "line\u2028separator"], ids=repr
)
def test_a_captured_name_that_cannot_be_one_is_refused(device: str) -> None:
    topics = TopicMap([Mapping(topic="a/{device}")])
    with pytest.raises(DecodeError) as caught:
        topics.source(f"a/{device}")
    assert caught.value.reason == "bad-name"


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (Mapping(topic="a/{gadget}", device="x"), r"unknown placeholder \{gadget\}"),
        (Mapping(topic="a/#/b", device="x"), "# only stands at the end"),
        (Mapping(topic="a/b+", device="x"), "mixes text"),
        (Mapping(topic="a/x{device}"), "mixes text"),
        (Mapping(topic="{device}/{device}"), "captured twice"),
        (Mapping(topic="", device="x"), "empty"),
        (Mapping(topic="sensors/temperature"), r'set device = "\.\.\." to a name, or device_field'),
        (Mapping(topic="a/{device}", site="{site}"), 'set site = "..."'),
        (Mapping(topic="a/{device}", format="number"), r'set metric = "\.\.\."'),
        (Mapping(topic="a/{device}", tenant="{who}"), r"unknown placeholder \{who\}"),
    ],
    ids=lambda value: value.topic if isinstance(value, Mapping) else "",
)
def test_a_mapping_that_cannot_work_is_refused_at_load(mapping: Mapping, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        TopicMap([Mapping(topic="ok/{device}"), mapping])
    assert "mappings[1]" in str(caught.value)


def test_a_device_field_of_the_payload_stands_in_for_the_topic() -> None:
    source = TopicMap([Mapping(topic="all", device_field="id")]).source("all")
    assert source is not None
    assert source.device is None
    assert "id" in source.reserved


def test_filters_inside_others_are_left_out() -> None:
    topics = TopicMap(
        [
            Mapping(topic="a/special", device="x"),
            Mapping(topic="a/{device}"),
            Mapping(topic="b/#", device="x"),
            Mapping(topic="b", device="x"),
            Mapping(topic="b/{device}/up"),
        ]
    )
    assert topics.filters == ("hw/v1/#", "a/+", "b/#")


def test_filters_that_cross_are_kept_and_each_topic_has_one_first_filter() -> None:
    topics = TopicMap([Mapping(topic="a/{device}"), Mapping(topic="{device}/b")])
    assert topics.filters == ("hw/v1/#", "a/+", "+/b")
    one, other = topics.filter_ids[1:]
    found = [topics.delivering_id(t) for t in ("a/b", "a/x", "x/b", "q")]
    assert found == [one, one, other, 0]


def test_a_filter_has_the_same_identifier_whatever_stands_beside_it() -> None:
    few = TopicMap([Mapping(topic="a/{device}")])
    more = TopicMap([Mapping(topic="b/{device}"), Mapping(topic="a/{device}")])
    by_filter = dict(zip(more.filters, more.filter_ids, strict=True))
    assert all(by_filter[f] == n for f, n in zip(few.filters, few.filter_ids, strict=True))
    assert len(set(more.filter_ids)) == 3
