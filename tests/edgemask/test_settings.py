"""The configuration file: what it may say, and how mistakes in it are named."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from edgemask.errors import InputError, SourceError
from edgemask.settings import (
    EXAMPLE,
    MqttSettings,
    Settings,
    ZoneSettings,
    load_settings,
    mqtt_password,
    size_in_bytes,
)
from edgemask.tomlfile import fill

SQUARE = "polygon = [[0, 0], [1, 0], [1, 1]]"


def load(folder, text):
    path = folder / "edgemask.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


# ---- the example that is shipped


def documented():
    """Return the example with every commented key in force."""
    return tomllib.loads(re.sub(r"^#(?=[\w\[])", "", EXAMPLE.read_text("utf-8"), flags=re.M))


def test_the_example_as_it_is_holds_the_defaults():
    assert load_settings(EXAMPLE) == Settings()


def test_the_example_names_every_key_and_no_other():
    def keys(cls):
        return {f.name for f in dataclasses.fields(cls)}

    tables = documented()
    assert set(tables) == keys(Settings)
    for field in dataclasses.fields(Settings):
        if field.name == "zone":
            assert set(tables["zone"][0]) == keys(ZoneSettings)
        else:
            assert set(tables[field.name]) == keys(type(field.default)), field.name


def test_the_values_in_the_example_are_the_defaults(tmp_path):
    given = dataclasses.asdict(fill(Settings, documented(), tmp_path))
    zone = given.pop("zone")[0]
    for name, table in dataclasses.asdict(Settings()).items():
        if name == "zone":
            table = dataclasses.asdict(ZoneSettings("door", zone["polygon"]))
            assert table == zone
            continue
        for key, default in table.items():
            if default is not None:  # without a default, the example shows how one would write it
                assert given[name][key] == default, f"{name}.{key}"


def test_every_key_of_the_example_is_explained_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    for name, table in documented().items():
        part = re.search(rf"^## \[+{name}\]+\n(.*?)(?=^## |\Z)", page, re.M | re.S)
        assert part, f"no part about [{name}]"
        rows = set(re.findall(r"^\| `(\w+)` \|", part[1], re.M))
        assert rows == set(table[0] if isinstance(table, list) else table), name


# ---- values


def test_values_reach_their_places(tmp_path):
    settings = load(
        tmp_path,
        """
        [source]
        uri = "synthetic:?people=2"
        [model]
        score = 1
        threads = 2
        [pace]
        max_fps = 5
        [serve]
        token_file = "token"
        [mqtt]
        host = "broker.lan"
        classes = ["person"]
        [events]
        folder = "/srv/events"
        hook = ["/bin/true", "--now"]
        [[zone]]
        name = "Front door"
        polygon = [[10, 10], [200, 10], [200, 300.5]]
        """,
    )
    assert settings.source.uri == "synthetic:?people=2"
    assert (settings.model.score, settings.model.threads) == (1.0, 2)
    assert isinstance(settings.model.score, float)
    assert settings.pace.max_fps == 5.0
    assert settings.serve.token_file == tmp_path / "token"
    assert settings.mqtt.classes == ("person",)
    assert settings.events.folder == Path("/srv/events")
    assert settings.events.hook == ("/bin/true", "--now")
    (zone,) = settings.zone
    assert zone.polygon == ((10.0, 10.0), (200.0, 10.0), (200.0, 300.5))
    assert not zone.normalised
    assert zone.slug == "front_door"


def test_zones_in_shares_of_the_image(tmp_path):
    (zone,) = load(tmp_path, f"[[zone]]\nname = 'a'\n{SQUARE}").zone
    assert zone.normalised


def test_variables_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/edgemask")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    text = '[mqtt]\npassword_file = "${CREDENTIALS_DIRECTORY}/mqtt"'
    assert load(tmp_path, text).mqtt.password_file == Path("/run/credentials/edgemask/mqtt")
    with pytest.raises(InputError, match=r"events\.folder .*STATE_DIRECTORY is not set"):
        load(tmp_path, '[events]\nfolder = "$STATE_DIRECTORY/events"')


def test_the_pack_is_a_path_if_it_looks_like_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/pi")
    monkeypatch.setenv("MODELS", "/models")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    for text, pack in (
        ("people", "people"),
        ("mine.zip", str(tmp_path / "mine.zip")),
        ("~/mine.zip", "/home/pi/mine.zip"),
        ("$MODELS/mine.zip", "/models/mine.zip"),
    ):
        assert load(tmp_path, f'[model]\npack = "{text}"').model.pack == pack
    with pytest.raises(InputError, match=r"model\.pack .*STATE_DIRECTORY is not set"):
        load(tmp_path, '[model]\npack = "$STATE_DIRECTORY/mine.zip"')


@pytest.mark.parametrize(
    ("text", "size"),
    [("200 MB", 200_000_000), ("1.5GB", 1_500_000_000), ("64 KiB", 65536), ("100", 100)],
)
def test_sizes(text, size):
    assert size_in_bytes(text) == size


# ---- mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[modell]\nscore = 1", ["modell", "did you mean model?"]),
        ("[model]\nscores = 1", ["model.scores", "did you mean score?"]),
        ("[model]\nxyz = 1", ["model.xyz", "known are pack, score"]),
        ("[mqtt]\npassword = 'x'", ["mqtt.password", "password_file"]),
        ("[model]\nscore = 'high'", ["model.score", "'high'", "give a number"]),
        ("[model]\nscore = true", ["model.score", "true", "give a number"]),
        ("[model]\nscore = 1.5", ["model.score", "1.5", "from 0 to 1"]),
        ("[model]\nscore = nan", ["model.score", "nan", "from 0 to 1"]),
        ("[model]\nthreads = 2.0", ["model.threads", "2.0", "whole number"]),
        ("[model]\nthreads = 0", ["model.threads", "from 1 to 64"]),
        ("[serve]\nport = 70000", ["serve.port", "70000", "65535"]),
        ("[serve]\ntoken_file = ''", ["serve.token_file", "empty"]),
        ("[source]\nuri = ' '", ["source.uri", "not empty"]),
        ("[mqtt]\ntls = 'yes'", ["mqtt.tls", "true or false"]),
        ("[mqtt]\ntopic = 'a/#'", ["mqtt.topic", "a/#"]),
        ("[mqtt]\nnode = 'pi 4'", ["mqtt.node", "letters, digits"]),
        ("[mqtt]\nclasses = 'person'", ["mqtt.classes", "list"]),
        ("[mqtt]\nclasses = [1]", ["mqtt.classes[0]", "string"]),
        ("[mqtt]\nca_file = 'ca.pem'", ["mqtt.ca_file", "tls = true"]),
        ("[mqtt]\nhost = 'a'\npassword_file = 'p'", ["mqtt.password_file", "add username"]),
        ("[events]\ndisk_budget = 'much'", ["events.disk_budget", "200 MB"]),
        ("[events]\nhook = ['']", ["events.hook[0]", "program"]),
        ("[[zone]]\nname = 'a'", ["zone[0].polygon", "missing"]),
        (f"[[zone]]\n{SQUARE}", ["zone[0].name", "missing"]),
        ("[[zone]]\nname = 'a'\npolygon = [[0, 0], [1, 1]]", ["zone[0].polygon", "three points"]),
        ("[[zone]]\nname = 'a'\npolygon = [[0], [1, 1]]", ["zone[0].polygon[0]", "give 2"]),
        ("[[zone]]\nname = 'a'\npolygon = [[0,0],[1,1],[0.5,0.5]]", ["polygon", "one line"]),
        ("[[zone]]\nname = 'a'\npolygon = [[0,0],[-1,1],[0,1]]", ["polygon", "negative"]),
        (f"[[zone]]\nname = 'a'\n{SQUARE}\ninside = 'head'", ["zone[0].inside", "foot, area"]),
        (f"[[zone]]\nname='a b'\n{SQUARE}\n[[zone]]\nname='A_b'\n{SQUARE}", ["'a b'", "'A_b'"]),
        ("[[zone]]\nname = 'a'\npolygon = [[0,0],[1e200,0],[1,1]]", ["polygon", "within"]),
        (f"[pace]\nmax_fps = {10**400}", ["pace.max_fps", "from 0.01 to 1000"]),
        (f"[events]\ndisk_budget = '{'9' * 400} GB'", ["events.disk_budget", "a disk can have"]),
        ('[serve]\ntoken_file = "a\\u0000"', ["serve.token_file", "NUL"]),
        ('[serve]\nhost = "a\\u0000"', ["serve.host", "NUL"]),
        (f"[serve]\nport = {'9' * 5000}", ["not TOML"]),
        (f"a = {'[' * 100_000}", ["not TOML"]),
        ("zone = 3", ["zone", "3", "list"]),
        ("model = 3", ["model", "3", "[model]"]),
        ("[model\n", ["not TOML", "line 1"]),
    ],
)
def test_mistakes_are_named(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    for word in [str(tmp_path / "edgemask.toml"), *words]:
        assert word in message


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SourceError, match=r"none\.toml cannot be read"):
        load_settings(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load_settings(tmp_path / "binary.toml")


# ---- the password


def test_password_from_file_or_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("EDGEMASK_MQTT_PASSWORD", raising=False)
    assert mqtt_password(MqttSettings()) is None
    path = tmp_path / "password"
    path.write_text("open sesame \n", encoding="utf-8")
    settings = MqttSettings(password_file=path)
    assert mqtt_password(settings) == "open sesame "
    monkeypatch.setenv("EDGEMASK_MQTT_PASSWORD", "from outside")
    assert mqtt_password(settings) == "from outside"


def test_password_file_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.delenv("EDGEMASK_MQTT_PASSWORD", raising=False)
    with pytest.raises(SourceError, match=r"mqtt\.password_file .*cannot be read"):
        mqtt_password(MqttSettings(password_file=tmp_path / "none"))
