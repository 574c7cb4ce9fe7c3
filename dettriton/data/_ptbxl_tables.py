"""PTB-XL 1.0.3 as constants: statements, classes, folds, files."""

from collections.abc import Mapping
from types import MappingProxyType

RHYTHM = ("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU")

SUPERCLASS = ("NORM", "MI", "STTC", "CD", "HYP")

_DIAGNOSTIC_OF_CLASS = {
    "NORM": "NORM",
    "MI": "IMI ASMI ILMI AMI ALMI INJAS LMI INJAL IPLMI IPMI INJIN INJLA PMI INJIL",
    "STTC": "NDT NST_ DIG LNGQT ISC_ ISCAL ISCIN ISCIL ISCAS ISCLA ANEUR EL ISCAN",
    "CD": "LAFB IRBBB 1AVB IVCD CRBBB CLBBB LPFB WPW ILBBB 3AVB 2AVB",
    "HYP": "LVH LAO/LAE RVH RAO/RAE SEHYP",
}

DIAGNOSTIC = tuple(code for codes in _DIAGNOSTIC_OF_CLASS.values() for code in codes.split())
"""The 44 diagnostic statements, by superclass, then in the order of ``scp_statements.csv``."""

SUPERCLASS_OF: Mapping[str, str] = MappingProxyType(
    {code: name for name, codes in _DIAGNOSTIC_OF_CLASS.items() for code in codes.split()}
)
"""Diagnostic statement to superclass."""

_FORM_CODES = "NDT NST_ DIG LNGQT ABQRS PVC STD_ VCLVH QWAVE LOWT NT_ PAC LPR INVT LVOLT HVOLT TAB_ STE_ PRC(S)"

FORM = tuple(_FORM_CODES.split())
"""The 19 form statements, in the order of ``scp_statements.csv``; the first four are diagnostic, too."""

STATEMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType({"diagnostic": DIAGNOSTIC, "form": FORM, "rhythm": RHYTHM})
"""The codes of each kind, 71 in all."""

TASK_CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType({"superclass": SUPERCLASS, **STATEMENTS})
"""Task to classes, by number."""

SPLIT_OF_FOLD: Mapping[int, str] = MappingProxyType(dict.fromkeys(range(1, 9), "train") | {9: "val", 10: "test"})

RECORDS = 21_799
SAMPLES: Mapping[str, int] = MappingProxyType({"train": 17_418, "val": 2_183, "test": 2_198})

_NOT_IN_THIS_VERSION = (137, 139, 140, 141, 142, 143, 145, 456, 458, 459, 461, 462)
FIRST_488 = tuple(i for i in range(1, 501) if i not in _NOT_IN_THIS_VERSION)
"""The records of ``ptbxl488``: those of the first 500 numbers that version 1.0.3 has."""

RATE_OF = MappingProxyType({"records100": 100, "records500": 500})
"""The folders of records, and the sampling rate of each in Hz."""
