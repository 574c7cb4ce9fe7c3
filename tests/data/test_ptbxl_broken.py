from pathlib import Path

import numpy as np
import pytest
from made_wfdb import LEADS, file_name, noise, write_record, write_sums

from dettriton.data import load, ptbxl
from dettriton.data.ptbxl import read_ptbxl
from dettriton.errors import InputError, IntegrityError

pytestmark = pytest.mark.usefixtures("no_folders_of_this_machine")


def rewrite(number: int, **changes):
    def change(root: Path) -> None:
        samples = changes.pop("samples", noise(number))
        write_record(root / file_name(number), samples, **changes)

    return change


def edit(name: str, old: str, new: str):
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return change


def remove(name: str):
    return lambda root: (root / name).unlink()


def append(name: str, text: bytes):
    return lambda root: (root / name).write_bytes((root / name).read_bytes() + text)


THIRD, DATABASE, STATEMENTS = file_name(3), "ptbxl_database.csv", "scp_statements.csv"
BROKEN = {
    "no header": (remove(f"{THIRD}.hea"), f"lacks 1 of 12.*{THIRD}.hea"),
    "no signal file": (remove(f"{THIRD}.dat"), f"lacks 1 of 12.*{THIRD}.dat"),
    "missing lead": (rewrite(3, samples=noise(3, channels=11), leads=LEADS[:11]), f"{THIRD} lacks lead V6"),
    "another lead": (rewrite(3, leads=(*LEADS[:11], "V7")), f"{THIRD} lacks lead V6; it has"),
    "a lead twice": (rewrite(3, samples=noise(3, channels=13), leads=(*LEADS, "V1")), f"{THIRD} has lead V1 more than"),
    "short": (rewrite(3, samples=noise(3, 999)), f"{THIRD}: number of samples: 999 instead of 1000"),
    "short file": (rewrite(3, data=noise(3).tobytes()[:-24]), f"{THIRD}.*short"),
    "no bytes": (rewrite(3, data=b""), f"{THIRD}.*short"),
    "rate": (rewrite(3, rate=500), f"{THIRD}: sampling rate: 500 instead of 100"),
    "fractional rate": (rewrite(3, rate=100.5), f"{THIRD}: sampling rate: 201/2 instead"),
    "gain": (rewrite(3, gain="200.0(0)/mV"), f"{THIRD}: gains: 200 instead of 1000"),
    "baseline": (rewrite(3, gain="1000.0(5)/mV"), f"{THIRD}: baselines: 5 instead of 0"),
    "unit": (rewrite(3, gain="1000.0(0)/uV"), f"{THIRD}: units: uV instead of mV"),
    "missing sample": (
        rewrite(3, samples=np.where(noise(3) == noise(3)[4, 7], -32768, noise(3))),
        f"{THIRD} has missing",
    ),
    "malformed header": (lambda root: (root / f"{THIRD}.hea").write_text("no header\n"), THIRD),
    "empty header": (lambda root: (root / f"{THIRD}.hea").write_text(""), THIRD),
    "signal file elsewhere": (
        edit(f"{THIRD}.hea", "00003_lr.dat", "00009_lr.dat"),
        f"{THIRD}.*00009_lr.dat is missing",
    ),
    "unknown code": (edit(DATABASE, "TRIGU", "TRIGO"), "record 3: unknown SCP code 'TRIGO'"),
    "fold": (
        edit(DATABASE, '",9,', '",11,'),
        "record 3: strat_fold is 11",
    ),
    "fold in words": (edit(DATABASE, '",9,', '",nine,'), "record 3: strat_fold is 'nine'"),
    "codes that are no dictionary": (edit(DATABASE, "{'LVH'", "['LVH'"), "record 3: scp_codes"),
    "codes that are a program": (edit(DATABASE, "{'LVH': 50.0", "{print(): 50.0"), "record 3: scp_codes"),
    "number": (edit(DATABASE, "\n3,", "\nthree,"), "ecg_id is 'three'"),
    "number twice": (edit(DATABASE, "\n3,", "\n2,"), "record 2 is there a second time"),
    "path": (edit(DATABASE, f",{THIRD},", f",../{THIRD},"), "record 3: filename_lr is '../"),
    "too few fields": (append(DATABASE, b"8,8.0\n"), "line 8: the row does not have 6 fields"),
    "too many fields": (edit(DATABASE, "\n3,3.0", "\n3,3.0,3"), "line 4: the row does not have 6 fields"),
    "open quotes": (append(DATABASE, b'8,8.0,"{'), "not a table of comma-separated values"),
    "not text": (append(DATABASE, b"\xff\xfe"), "not a table of comma-separated values"),
    "no column": (edit(DATABASE, "strat_fold", "fold"), "no column 'strat_fold'"),
    "empty table": (lambda root: (root / DATABASE).write_text(""), "no column 'ecg_id'"),
    "no statements": (remove(STATEMENTS), "cannot read .*scp_statements.csv"),
    "other statements": (edit(STATEMENTS, ",1.0,,,HYP", ",1.0,,,CD"), "does not have the 71 statements"),
    "fewer statements": (edit(STATEMENTS, 'TRIGU,"a, b",,,1.0,', ""), "does not have the 71|does not have 6 fields"),
    "flag": (edit(STATEMENTS, ",1.0,,,HYP", ",yes,,,HYP"), "neither 1.0 nor empty"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_validate_broken_trees(root, kind):
    change, message = BROKEN[kind]
    change(root)
    with pytest.raises(InputError, match=message) as caught:
        read_ptbxl("rhythm", root)
    assert "\n" not in str(caught.value)


def test_validate_no_header_checksum(root):
    header = root / f"{THIRD}.hea"
    lines = header.read_text().splitlines()
    header.write_text("\n".join([lines[0], *(" ".join([*line.split()[:5], line.split()[-1]]) for line in lines[1:])]))
    with pytest.raises(InputError, match=THIRD):
        read_ptbxl("rhythm", root)


@pytest.mark.parametrize("listed", [False, True])
def test_validate_wrong_checksums_name_the_record(root, listed):
    if listed:
        write_sums(root)
    content = bytearray((root / f"{THIRD}.dat").read_bytes())
    content[2 * (12 * 500 + 6)] ^= 1
    (root / f"{THIRD}.dat").write_bytes(content)
    with pytest.raises(IntegrityError, match="SHA-256" if listed else "lead V1 has the checksum") as caught:
        read_ptbxl("rhythm", root)
    assert f"record {THIRD}" in str(caught.value)


def test_validate_sums_that_are_none(root):
    for text in ("no sums\n", "0" * 63 + " a\n", "0" * 64 + "\n", "g" * 64 + " a\n"):
        (root / "SHA256SUMS.txt").write_text(text)
        with pytest.raises(InputError, match=r"SHA256SUMS.txt line 1"):
            read_ptbxl("rhythm", root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "subclass"}, "superclass, diagnostic, form, rhythm"),
        ({"source": "records250"}, "records100, records500"),
        ({"ids": [1, 5, 6]}, "lacks 2 wanted records: 5, 6"),
        ({"ids": [3, 4]}, "nothing to train on"),
        ({"ids": []}, "nothing to train on"),
        ({"source": "records500"}, "lacks 12 of 12 wanted files"),
    ],
)
def test_validate_refusals(root, arguments, message):
    with pytest.raises(InputError, match=message):
        read_ptbxl(**({"task": "form", "data_dir": root} | arguments))


@pytest.mark.parametrize("name", ptbxl.NAMES)
def test_validate_a_part_is_not_the_whole(root, name):
    with pytest.raises(InputError, match=r"lacks 483 wanted records|6 records .* and .* has 21799"):
        load(name, root)


def test_validate_unknown_set():
    with pytest.raises(InputError, match="ptbxl488, ptbxl_superclass"):
        ptbxl.describe_ptbxl("ptbxl")
