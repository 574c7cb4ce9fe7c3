"""No input crashes or hangs a reader: it is read, or refused with an error of ours. The full proof prints counts."""

import json

import pytest
from fuzz import readers, records
from fuzz.harness import HangError, fuzz
from fuzz.mutation import Form, json_bytes

from dettriton.errors import InputError

READERS = readers.READERS | records.READERS
LEAST_IN_ALL = 100_000
_MOST_MEBIBYTES = 512


@pytest.mark.parametrize("name", READERS)
def test_validate_some_inputs(tmp_path, name):
    outcome = fuzz(*READERS[name].make(tmp_path), READERS[name].few)
    assert outcome.counts.total() >= READERS[name].few // 2, "hypothesis ran out of inputs"


@pytest.mark.heavy
@pytest.mark.parametrize("name", READERS)
def test_validate_many_inputs(tmp_path, name, capsys):
    outcome = fuzz(*READERS[name].make(tmp_path), READERS[name].many)
    with capsys.disabled():
        print(f"\n{name}: {outcome}")
    assert outcome.counts.total() >= READERS[name].many
    assert outcome.grown_mebibytes < _MOST_MEBIBYTES


def test_the_full_proof_is_large_enough():
    assert sum(reader.many for reader in READERS.values()) >= LEAST_IN_ALL


@pytest.mark.parametrize("name", READERS)
def test_verify_the_valid_files_are_read(tmp_path, name):
    form, read = READERS[name].make(tmp_path)
    for content in form.files:
        read(content)


VALID = Form((b'{"bitspec": 1, "steps": [1, 2]}',), ({"bitspec": 1, "steps": [1, 2]},))


def careless(content: bytes) -> int:
    """Refuses what is not JSON, and trusts the rest."""
    try:
        read = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(str(error) or "damaged") from None
    return read["bitspec"] + len(read["steps"])


@pytest.mark.filterwarnings("ignore")
def test_control_a_careless_reader_is_found():
    with pytest.raises((KeyError, TypeError, IndexError, ExceptionGroup)):
        fuzz(VALID, careless, 300)


def test_control_a_hanging_reader_is_found():
    def hang(content: bytes) -> None:
        while content == json_bytes({"bitspec": 1, "steps": [1, 2]}) or len(content) > 40:
            pass

    with pytest.raises(HangError):
        fuzz(VALID, hang, 300, longest_seconds=0.05)


def test_control_an_endless_message_is_found():
    def tell(content: bytes) -> None:
        raise InputError(f"damaged: {content!r}" * 1000)

    with pytest.raises(AssertionError, match="a message of"):
        fuzz(VALID, tell, 5)
