"""Codes of headers as labels: the tables are of PTB-XL's classes, and records read by eye get the labels they should."""

import pytest

from dettriton.data._ptbxl_tables import FORM, RHYTHM, SUPERCLASS, TASK_CLASSES
from dettriton.data.wfdb_folder import SNOMED_RHYTHM, SNOMED_SUPERCLASS, read_wfdb_folder, snomed_table
from dettriton.errors import InputError

READ_BY_EYE = {
    "E07500": {"HYP"},
    "E07504": {"STTC"},
    "E07507": {"STTC"},
    "E07509": {"CD"},
    "E07511": set(),
    "E07514": {"STTC"},
    "E07519": {"HYP"},
    "HR06000": {"STTC"},
    "HR06002": {"CD"},
    "HR06004": set(),
    "JS20000": {"CD", "STTC"},
    "JS20002": {"STTC"},
    "JS20004": set(),
    "JS20005": {"HYP"},
    "JS20009": {"STTC"},
    "JS20014": {"CD", "STTC", "HYP"},
    "JS20018": {"CD"},
}
"""Records of the Challenge's sample; JS20004 has a high voltage only, which is no hypertrophy."""


def test_the_tables_name_classes_of_ptbxl():
    assert set(SNOMED_RHYTHM.values()) == set(RHYTHM) - {"SVARR"}
    assert set(SNOMED_SUPERCLASS.values()) == set(SUPERCLASS) - {"NORM"}
    assert not set(SNOMED_RHYTHM) & set(SNOMED_SUPERCLASS)
    assert all(code.isdecimal() for code in (*SNOMED_RHYTHM, *SNOMED_SUPERCLASS))


def test_the_table_follows_the_classes():
    assert snomed_table(RHYTHM) is SNOMED_RHYTHM
    assert snomed_table(list(SUPERCLASS)) is SNOMED_SUPERCLASS
    for classes in (TASK_CLASSES["diagnostic"], FORM, SUPERCLASS[::-1], SUPERCLASS[:3], ()):
        with pytest.raises(InputError, match=r"for the rhythms SR, .* superclasses NORM, MI, .*; those of x are"):
            snomed_table(classes, "those of x")


@pytest.mark.data
def test_validate_labels_of_records_read_by_eye(data_dir):
    folder = data_dir / "wfdb" / "cinc2021"
    found = read_wfdb_folder(folder, names=[*READ_BY_EYE], classes=SUPERCLASS, class_of_code=SNOMED_SUPERCLASS).dataset
    labels = {
        name: {c for c, flag in zip(SUPERCLASS, row, strict=True) if flag}
        for name, row in zip(found.records, found.labels.tolist(), strict=True)
    }
    assert labels == READ_BY_EYE
