import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dettriton.errors import InputError, IntegrityError
from dettriton.train.trace import (
    Difference,
    Position,
    Trace,
    first_difference,
    first_link,
    float_bits,
    float_of_bits,
    next_link,
    parse_record,
    read_trace,
)

START = Position("0" * 64, 0)


def write(path, losses=(1.5, 0.25, -0.0), weight="aa", interval=0, start=START):
    with Trace(start, path) as trace:
        for step, loss in enumerate(losses):
            last = step == len(losses) - 1
            tensors = {"w": weight if last else f"{step}", "b": "bb"} if last or interval else None
            trace.append(step, loss, tensors, ends_epoch=last)
        return trace.position()


def test_verify_lines_follow_the_definition(tmp_path):
    write(tmp_path / "t")
    link, lines = "0" * 64, []
    for step, (bits, tensors) in enumerate(
        [("3fc00000", None), ("3e800000", None), ("80000000", {"b": "bb", "w": "aa"})]
    ):
        record = {"loss": bits, "step": step} | ({"tensors": tensors} if tensors else {})
        canonical = json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n"
        link = hashlib.sha256(f"{link}\n{canonical}".encode()).hexdigest()
        lines.append(json.dumps(record | {"chain": link}, sort_keys=True, separators=(",", ":")) + "\n")
    assert (tmp_path / "t").read_text() == "".join(lines)


def test_verify_first_link_and_bits():
    assert first_link("a", "b") == hashlib.sha256(b"a\nb\n").hexdigest()
    assert float_bits(-2.0) == "c0000000"


def test_verify_chain_without_a_file_is_the_same(tmp_path):
    assert write(None).link == write(tmp_path / "t").link


def test_verify_closer_tracing_leaves_the_chain_alone(tmp_path):
    coarse, close = write(tmp_path / "a"), write(tmp_path / "b", interval=1)
    assert coarse.link == close.link
    assert close.size > coarse.size


def test_verify_chain_sees_loss_and_tensors(tmp_path):
    links = {write(None).link, write(None, losses=(1.5, 0.25, 0.0)).link, write(None, weight="ab").link}
    assert len(links) == 3


def test_verify_going_on_cuts_what_came_after(tmp_path):
    write(tmp_path / "whole")
    with Trace(START, tmp_path / "t") as trace:
        trace.append(0, 1.5, ends_epoch=False)
        position = trace.position()
        trace.append(1, 99.0, ends_epoch=False)
    with open(tmp_path / "t", "ab") as file:
        file.write(b'{"loss":"3e80')
    with Trace(position, tmp_path / "t") as trace:
        trace.append(1, 0.25, ends_epoch=False)
        trace.append(2, -0.0, {"w": "aa", "b": "bb"}, ends_epoch=True)
    assert (tmp_path / "t").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "short", "edited"])
def test_verify_damaged_trace_is_refused(tmp_path, damage):
    path = tmp_path / "t"
    position = write(path)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(content[:-5])
    else:
        path.write_bytes(content.replace(position.link.encode(), b"f" * 64))
    with pytest.raises(IntegrityError, match="does not lead to the checkpoint"):
        Trace(position, path)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, None),
        ({"losses": (1.5, 0.5, -0.0)}, Difference(1, None)),
        ({"losses": (1.5, 0.25, 0.0)}, Difference(2, None)),
        ({"weight": "ab"}, Difference(2, "w")),
        ({"losses": (1.5, 0.25)}, Difference(1, "w")),
        ({"start": Position("1" * 64, 0)}, Difference(0, None)),
    ],
    ids=str,
)
def test_verify_first_difference(tmp_path, change, found):
    write(tmp_path / "a", interval=1)
    write(tmp_path / "b", interval=1, **change)
    assert first_difference(tmp_path / "a", tmp_path / "b") == found


def test_verify_first_difference_of_a_shorter_trace(tmp_path):
    write(tmp_path / "a")
    lines = (tmp_path / "a").read_text().splitlines(keepends=True)
    (tmp_path / "b").write_text("".join(lines[:2]))
    assert first_difference(tmp_path / "a", tmp_path / "b") == Difference(2, None)
    assert str(Difference(2, None)) == "step 2"
    assert str(Difference(2, "w")) == "step 2, tensor w"


@pytest.mark.parametrize(("content", "told"), [("[1]\n", "line 1"), ('{"step":0}\n', "line 1"), (None, "cannot read")])
def test_verify_unreadable_traces(tmp_path, content, told):
    if content is not None:
        (tmp_path / "t").write_text(content)
    with pytest.raises(InputError, match=told):
        read_trace(tmp_path / "t")


RECORD = {"step": 3, "loss": "3fc00000", "chain": "0" * 64}
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        json.dumps(RECORD).encode("utf-16"),
        DEEP.encode(),
        b'{"step":' + DEEP.encode(),
        b"9" * 10_000,
        b"NaN",
        *(
            json.dumps(RECORD | change).encode()
            for change in (
                {"step": 10**400},
                {"step": -1},
                {"step": True},
                {"step": 1.0},
                {"step": None},
                {"loss": "3fc0000"},
                {"loss": "3FC00000"},
                {"loss": 1.5},
                {"chain": "0" * 63},
                {"chain": ["0" * 64]},
                {"other": float("nan")},
                {"other": float("inf")},
                {"tensors": None},
                {"tensors": [["w", "aa"]]},
                {"tensors": {"w": 1}},
                {"tensors": {"w": ""}},
                {"tensors": {"\ud800": "aa"}},
                {"initial": {"w": "xy"}},
                {"samples": []},
                {"gradients": {"w": "aa"}},
                {"gradients": [["w"]]},
                {"gradients": [["w", "aa", "bb"]]},
                {"outputs": [["\udfff", "aa"]]},
                {"outputs": ["ab"]},
            )
        ),
        json.dumps(RECORD)[:-1].encode() + b',"step":4}',
    ],
    ids=lambda line: repr(line[:40]),
)
def test_verify_what_is_no_record_is_a_value_error(line):
    with pytest.raises(ValueError, match=r"\w"):
        parse_record(line)


def test_verify_whole_records_are_read():
    whole = RECORD | {"tensors": {"w\u00e9": "aa"}, "gradients": [["w", "aa"]], "outputs": [["", "bb"]], "later": [1]}
    assert parse_record(json.dumps(whole).encode()) == whole


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("0" * 64) | st.just("3fc00000"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("step", "loss", "chain", "tensors", "initial", "samples", "gradients", "outputs")


@given(
    st.binary(max_size=60) | st.dictionaries(st.sampled_from(KEYS), JSON).map(lambda d: json.dumps(RECORD | d).encode())
)
@settings(max_examples=50, deadline=None)
def test_verify_any_bytes_are_a_record_or_a_value_error(line):
    try:
        record = parse_record(line)
    except ValueError:
        return
    assert record["step"] >= 0 and float_bits(float_of_bits(record["loss"])) == record["loss"]
    next_link(record["chain"], record)


def test_verify_a_file_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match=r"cannot write the trace .*No such file"), Trace(START, tmp_path / "no/t"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_verify_a_full_disk_is_told(tmp_path):
    trace = Trace(START, tmp_path / "t")
    with pytest.raises(InputError, match=r"No space left.*goes on with --resume"), trace:
        trace._file._file.close()
        trace._file._file = open("/dev/full", "ab")  # noqa: SIM115 closed by the trace
        trace.append(0, 1.5, ends_epoch=False)
