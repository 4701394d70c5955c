"""What is published."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgemask import __version__
from edgemask.instances import Instances
from edgemask.live.governor import GovernorState
from edgemask.live.result import Result
from edgemask.masks import CropMasks
from edgemask.settings import MqttSettings
from edgemask.sinks.payloads import (
    Topics,
    counts,
    detections,
    diagnostics,
    discovery,
    encode,
    zone_state,
)
from edgemask.sources.base import Frame

TOPICS = Topics.of(MqttSettings(topic="home/cameras", node="attic"))


def test_topics():
    assert TOPICS.status == "home/cameras/attic/status"
    assert TOPICS.zone("front_door") == "home/cameras/attic/zone/front_door"


def test_the_host_name_is_the_node(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "pi 4.fritz.box")
    assert Topics.of(MqttSettings()).counts == "edgemask/pi_4_fritz_box/counts"


def test_counts():
    assert counts(["dog", "person", "person"], ["person", "cat"]) == {
        "schema": "edgemask.counts/1",
        "total": 3,
        "counts": {"person": 2, "cat": 0, "dog": 1},
    }
    assert counts([], [])["counts"] == {}


def test_detections_are_json_and_have_no_masks():
    frame = Frame(np.zeros((20, 30, 3), np.uint8), 7, None, 123, "camera-000007")
    masks = CropMasks([np.ones((4, 5), bool)], [(2, 3)], 20, 30)
    found = Instances([[2, 3, 7, 7]], [0.75], [1], masks, ["person"])
    result = Result(frame, found, {}, 12.0, 4.0, GovernorState(), 41)
    content = json.loads(encode(detections(result)))
    assert content["schema"] == "edgemask.detections/1"
    assert (content["sequence"], content["index"], content["size"]) == (41, 7, [20, 30])
    (person,) = content["instances"]
    assert (person["class_name"], person["score"], person["area"]) == ("person", 0.75, 20)
    assert person["box"] == [2, 3, 7, 7]
    assert "segmentation" not in person
    assert len(detections(result, ["person"])["instances"]) == 1
    assert detections(result, ["dog"])["instances"] == []


def test_a_name_that_is_no_text_is_escaped():
    assert json.loads(encode({"name": "caf\udce9"})) == {"name": "caf\udce9"}


def test_encoding_is_compact_and_has_no_nan():
    assert encode({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        encode({"a": float("nan")})


def test_diagnostics_of_an_engine():
    status = {
        "fps": 4.5,
        "latency_ms": 210.0,
        "temperature_c": 61.2,
        "throttled": {"now": ["under-voltage"], "since_boot": []},
        "source": {"state": "running"},
        "frames": 10,
        "dropped": 1,
        "errors": 0,
        "settings": {},
    }
    content = diagnostics(status)
    assert content["throttled"] is True
    assert (content["temperature_c"], content["source"]) == (61.2, "running")
    assert diagnostics({"throttled": None})["throttled"] is None


def test_a_board_that_was_throttled_is_not_any_more() -> None:
    before = {"throttled": {"now": [], "since_boot": ["under-voltage"]}}
    assert diagnostics(before)["throttled"] is False


def test_zone_state():
    assert zone_state("door", 2)["count"] == 2


# ---- Home Assistant


def configs(**options):
    options = {"temperature": True, **options}
    messages = discovery(TOPICS, ["person", "dog"], {"door": "Door"}, **options)
    return {topic.removeprefix("homeassistant/"): content for topic, content in messages.items()}


def test_there_is_a_message_per_entity():
    assert set(configs()) == {
        "sensor/attic/person_count/config",
        "sensor/attic/dog_count/config",
        "binary_sensor/attic/occupancy/config",
        "sensor/attic/door_zone_count/config",
        "binary_sensor/attic/door_zone_occupancy/config",
        "sensor/attic/frame_rate/config",
        "sensor/attic/temperature/config",
    }
    assert "sensor/attic/temperature/config" not in configs(temperature=False)


def test_every_message_has_what_home_assistant_needs():
    messages = configs()
    ids = [content["unique_id"] for content in messages.values()]
    assert len(set(ids)) == len(ids)
    for content in messages.values():
        json.dumps(content, allow_nan=False)
        assert content["availability_topic"] == TOPICS.status
        assert content["device"]["identifiers"] == ["edgemask_attic"]
        assert content["device"]["sw_version"] == __version__
        assert content["state_topic"].startswith("home/cameras/attic/")


def test_classes_whose_names_have_no_or_the_same_slug():
    names = ["кошка", "собака", "C", "C++", "C#", "dog", "café", "cafe"]
    messages = discovery(TOPICS, names, {}, temperature=False)
    counted = [m for m in messages.values() if "counts[" in m["value_template"]]
    assert sorted(m["name"] for m in counted) == sorted(f"{name} count" for name in names)
    ids = {m["name"]: m["unique_id"] for m in counted}
    assert len(set(ids.values())) == len(names)
    assert ids["dog count"] == "edgemask_attic_dog_count"
    alone = discovery(TOPICS, names[:1], {}, temperature=False)
    assert ids["кошка count"] in {m["unique_id"] for m in alone.values()}  # whoever else is there


@pytest.mark.parametrize(
    ("entity", "state", "shown"),
    [
        ("sensor/attic/person_count", counts(["person", "person"], []), "2"),
        ("sensor/attic/dog_count", counts(["person"], []), "0"),
        ("binary_sensor/attic/occupancy", counts(["person"], []), "ON"),
        ("binary_sensor/attic/occupancy", counts([], ["person"]), "OFF"),
        ("sensor/attic/door_zone_count", zone_state("door", 3), "3"),
        ("binary_sensor/attic/door_zone_occupancy", zone_state("door", 3), "ON"),
        ("binary_sensor/attic/door_zone_occupancy", zone_state("door", 0), "OFF"),
        ("sensor/attic/temperature", diagnostics({"temperature_c": 51.5}), "51.5"),
        ("sensor/attic/temperature", diagnostics({}), "None"),  # Home Assistant's "unknown"
    ],
)
def test_templates_give_the_states(entity, state, shown):
    jinja2 = pytest.importorskip("jinja2", reason="templates are rendered with jinja2")
    template = configs()[f"{entity}/config"]["value_template"]
    assert jinja2.Template(template).render(value_json=json.loads(encode(state))) == shown
