"""SNOMED CT codes of WFDB headers as labels of PTB-XL.

Sources: the tables ``dx_mapping_scored.csv`` and ``dx_mapping_unscored.csv`` of the PhysioNet/CinC Challenge of 2021
(github.com/physionetchallenges/evaluation-2021), which name the codes, and ``scp_statements.csv`` of PTB-XL 1.0.3, whose
``diagnostic_class`` is the superclass of a statement.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from dettriton.data._ptbxl_tables import RHYTHM, SUPERCLASS
from dettriton.errors import InputError

SNOMED_RHYTHM: Mapping[str, str] = MappingProxyType(
    {
        "426783006": "SR",
        "164889003": "AFIB",
        "427084000": "STACH",
        "427393009": "SARRH",
        "426177001": "SBRAD",
        "10370003": "PACE",
        "11157007": "BIGU",
        "164890007": "AFLT",
        "426761007": "SVTAC",
        "67198005": "PSVT",
        "251180001": "TRIGU",
    }
)
"""SNOMED CT code to rhythm. BIGU and TRIGU are of any origin in PTB-XL; these codes are of the ventricular ones. No code
stands for SVARR: the Challenge's copy of PTB-XL has 63593006 there, "supraventricular premature beats", which in its other
sources are beats and no rhythm."""

SNOMED_SUPERCLASS: Mapping[str, str] = MappingProxyType(
    {
        "164865005": "MI",  # myocardial infarction
        "54329005": "MI",  # anterior myocardial infarction
        "57054005": "MI",  # acute myocardial infarction
        "164867002": "MI",  # old myocardial infarction
        "164861001": "STTC",  # myocardial ischemia
        "413444003": "STTC",  # acute myocardial ischemia
        "413844008": "STTC",  # chronic myocardial ischemia
        "426434006": "STTC",  # anterior ischemia
        "425419005": "STTC",  # inferior ischaemia
        "425623009": "STTC",  # lateral ischaemia
        "428750005": "STTC",  # nonspecific st t abnormality
        "55930002": "STTC",  # s t changes
        "164930006": "STTC",  # st interval abnormal
        "164934002": "STTC",  # t wave abnormal
        "111975006": "STTC",  # prolonged qt interval
        "445118002": "CD",  # left anterior fascicular block
        "445211001": "CD",  # left posterior fascicular block
        "713426002": "CD",  # incomplete right bundle branch block
        "713427006": "CD",  # complete right bundle branch block
        "59118001": "CD",  # right bundle branch block
        "251120003": "CD",  # incomplete left bundle branch block
        "733534002": "CD",  # complete left bundle branch block
        "164909002": "CD",  # left bundle branch block
        "6374002": "CD",  # bundle branch block
        "698252002": "CD",  # nonspecific intraventricular conduction disorder
        "82226007": "CD",  # diffuse intraventricular block
        "233917008": "CD",  # av block
        "270492004": "CD",  # 1st degree av block
        "195042002": "CD",  # 2nd degree av block
        "54016002": "CD",  # mobitz type i wenckebach atrioventricular block
        "426183003": "CD",  # mobitz type II atrioventricular block
        "27885002": "CD",  # complete heart block
        "204384007": "CD",  # congenital incomplete atrioventricular heart block
        "74390002": "CD",  # wolff parkinson white pattern
        "195060002": "CD",  # ventricular pre excitation
        "164873001": "HYP",  # left ventricular hypertrophy
        "89792004": "HYP",  # right ventricular hypertrophy
        "266249003": "HYP",  # ventricular hypertrophy
        "67741000119109": "HYP",  # left atrial enlargement
        "253352002": "HYP",  # left atrial abnormality
        "446813000": "HYP",  # left atrial hypertrophy
        "446358003": "HYP",  # right atrial hypertrophy
        "253339007": "HYP",  # right atrial abnormality
        "195126007": "HYP",  # atrial hypertrophy
    }
)
"""SNOMED CT code to diagnostic superclass: that of the diagnostic statement of PTB-XL which describes the same finding, or
which the code's more general or more special finding belongs to. Atrial "abnormality" and "hypertrophy" are the names of
other sources for PTB-XL's "overload/enlargement" (LAO/LAE, RAO/RAE); "t wave abnormal" is taken as NDT, "non-diagnostic T
abnormalities", and "s t changes" and "st interval abnormal" as NST_.

Left out is what PTB-XL has as a statement of form, without a superclass: ST depression and elevation, T-wave inversion, Q
waves, a long PR interval, low or high voltage. So is what it has no statement for, and what is no finding of a tracing.

No code stands for NORM: a normal record has the code of its rhythm, which an abnormal one may have, too."""

_TABLES = ((RHYTHM, SNOMED_RHYTHM), (SUPERCLASS, SNOMED_SUPERCLASS))


def snomed_table(classes: Sequence[str], whose: str = "these labels") -> Mapping[str, str]:
    """The table of codes for some classes.

    Args:
        classes: names of the labels, by number.
        whose: how an error names them.

    Raises:
        InputError: there is no table for these classes.
    """
    for known, table in _TABLES:
        if tuple(classes) == known:
            return table
    raise InputError(
        f"the SNOMED CT codes of WFDB headers are known here for the rhythms {', '.join(RHYTHM)} and for the diagnostic "
        f"superclasses {', '.join(SUPERCLASS)}; {whose} are {', '.join(classes)}"
    )
