"""The manifest's form: what is read, and what is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dettriton import zoo
from dettriton.zoo import _rows
from dettriton.zoo._rows import is_name, manifest_bytes, parse_manifest, require_canonical

NAME = "tiny.made"
HEX = "0123456789abcdef" * 4


def environment():
    return {
        "dettriton": "0.1.0",
        "python": "3.11",
        "platform": "Linux",
        "cpu": "a CPU",
        "cpu_capability": "AVX2",
        "threads": 2,
        "packages": {"torch": "2.11", "triton": None},
        "gpus": [{"name": "a GPU"}],
    }


def row():
    """A row with every field."""
    digests = {name: HEX for name, (fits, _) in _rows._FORMS.items() if fits is _rows.is_digest}
    return digests | {
        "name": NAME,
        "bitspec": 1,
        "best_epoch": 2,
        "validation": {"auc": 0.5, "acc": 1.0},
        "test": {"auc": 0.0, "acc": 0.25},
        "licence": "Apache-2.0",
        "data_licence": "CC BY 4.0",
        "environments": [environment()],
        "tensors": {"head.weight": HEX, "": HEX},
        "segments": {"every": 5, "steps": 12, "leaves": [HEX] * 3, "root": HEX},
    }


def manifest(**changes):
    return {"schema": 1, "entries": {NAME: row() | changes}}


def encoded(content):
    return json.dumps(content).encode()


def refused(data, told=""):
    with pytest.raises(zoo.DamagedReleaseError, match="not a manifest") as raised:
        parse_manifest(data)
    assert told in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_verify_full_row_is_read_and_written_again():
    data = _rows.canonical(manifest())
    rows = parse_manifest(data)
    assert rows[NAME].segments.count == 3 and rows[NAME].tensors["head.weight"] == HEX
    assert manifest_bytes(rows) == data
    require_canonical(data)


@pytest.mark.parametrize("left", [{}, {"segments": None, "tensors": None}])
def test_verify_optional_fields_may_be_absent_or_null(left):
    plain = {key: value for key, value in row().items() if key not in ("segments", "tensors")} | left
    (entry,) = parse_manifest(encoded({"schema": 1, "entries": {NAME: plain}})).values()
    assert entry.segments is None and entry.tensors is None
    assert "segments" not in entry.to_dict() and "tensors" not in entry.to_dict()


@pytest.mark.parametrize("schema", [2, 10**30])
def test_verify_newer_schema_is_told(schema):
    with pytest.raises(zoo.DamagedReleaseError, match=r"Install a newer dettriton"):
        parse_manifest(encoded({"schema": schema, "entries": {"a form": "of the future"}}))


@pytest.mark.parametrize("schema", [None, 0, -1, 1.0, True, "1", [1]])
def test_verify_wrong_schema_is_told(schema):
    refused(encoded({"schema": schema, "entries": {}}), "its schema is a number")
    refused(b'{"entries": {}}', "its schema is a number")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            (key, v)
            for key in ("weights_digest", "trace")
            for v in (HEX.upper(), HEX[1:], HEX + "0", HEX + "\n", 7, None)
        ),
        *(("name", v) for v in ("other.made", "../made", 3)),
        *(("bitspec", v) for v in (0, -1, 1.0, True, "1", 2**60)),
        *(("best_epoch", v) for v in (-1, 2.0, False, None)),
        *(("validation", {"auc": v, "acc": 0.5}) for v in (1.5, -0.1, 1, "1", None, True)),
        ("validation", {"auc": 0.5}),
        ("test", {"auc": 0.5, "acc": 0.5, "f1": 0.5}),
        ("test", [0.5, 0.5]),
        *(("licence", v) for v in ("", "  ", "two\nlines", "\x1b[2J", None, 3)),
        ("environments", {}),
        ("environments", ["here"]),
        *(("environments", [environment() | {k: v}]) for k, v in [("cpu", 3), ("gpus", [{}]), ("gpus", None)]),
        *(("environments", [environment() | {k: v}]) for k, v in [("packages", {}), ("threads", "2"), ("python", "")]),
        ("tensors", {}),
        ("tensors", {"a": "x"}),
        ("tensors", [HEX]),
        ("segments", [HEX]),
        ("segments", {}),
        *(("segments", row()["segments"] | change) for change in ({"every": 0}, {"every": True}, {"steps": 3})),
        *(("segments", row()["segments"] | change) for change in ({"leaves": [HEX]}, {"leaves": 3}, {"root": "r"})),
        ("segments", row()["segments"] | {"more": 1}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_verify_every_field_has_its_form(key, value):
    refused(encoded(manifest(**{key: value})), key if key != "segments" else "")


def test_verify_rows_have_exactly_their_keys():
    refused(encoded(manifest(more=1)), "keys")
    for key in row().keys() - {"segments", "tensors"}:
        refused(encoded({"schema": 1, "entries": {NAME: {k: v for k, v in row().items() if k != key}}}), "keys")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": 1, "entries": 3}',
        b'{"schema": 1, "entries": {}, "more": 1}',
        b'{"schema": 1, "schema": 1, "entries": {}}',
        b'{"schema": 1, "entries": {}, "entries": {}}',
        b'{"schema": ' + b"9" * 5000 + b', "entries": {}}',
        b'{"schema": 1, "entries": {"\\ud800": {}}}',
        encoded(manifest()).replace(b"0.25", b"NaN"),
        encoded(manifest()).replace(b"0.25", b"Infinity"),
        encoded(manifest()).replace(b"0.25", b"1e999"),
        encoded(manifest()).replace(b'"threads": 2', b'"threads": 2, "threads": 2'),
        encoded(manifest()).replace(b'"threads": 2', b'"threads": 2, "load": 1e999'),
        encoded(manifest()).replace(b'"a CPU"', b'"\\udfff"'),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_verify_what_is_no_manifest_is_refused(data):
    refused(data)


@pytest.mark.parametrize("name", ["a.b", "ecg_resnet18_tiny.rhythm_sim", "A-1.b_2.c", "tiny.made"])
def test_verify_names(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "plain", ".a.b", "a..b", "a.", "../a.b", "a/b.c", "a\\b.c", "a.b/..", "a b.c", "a.b\n", "ä.b", "-a.b"),
        *("a.golden", "a.b.segments", "a." + "b" * 130, 3, None),
    ],
)
def test_verify_names_that_lead_elsewhere_are_refused(name):
    assert not is_name(name)
    if isinstance(name, str):
        refused(encoded({"schema": 1, "entries": {name: row() | {"name": name}}}), "cannot name a model")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "\n",
        lambda text: text.replace("0.25", "0.250"),
        lambda text: text.replace("0.25", "25e-2"),
        lambda text: text.replace("a CPU", "\\u0061 CPU"),
        lambda text: text.replace("  ", " "),
        lambda text: json.dumps(json.loads(text), indent=2)[:-1].replace('"bitspec": 1,', "", 1) + "}\n",
        lambda text: text.replace('  "schema": 1', '  "schema":1'),
    ],
)
def test_verify_one_form_only(change):
    text = _rows.canonical(manifest()).decode()
    changed = change(text)
    assert changed != text
    with pytest.raises(zoo.DamagedReleaseError):
        require_canonical(changed.encode())


BYTES = _rows.canonical(manifest())


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(BYTES) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_verify_damaged_bytes_are_read_or_refused(position, inserted, removed):
    try:
        rows = parse_manifest(BYTES[:position] + inserted + BYTES[position + removed :])
    except zoo.DamagedReleaseError:
        return
    assert parse_manifest(manifest_bytes(rows)) == rows
