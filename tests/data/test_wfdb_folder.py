import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from made_wfdb import LEADS, noise, write_record
from scipy.signal import resample_poly

from dettriton.data._ptbxl_tables import RHYTHM
from dettriton.data._wfdb_record import load_wfdb, read_record
from dettriton.data.signals import Normalisation, measure, resample
from dettriton.data.wfdb_folder import SNOMED_RHYTHM, read_wfdb_folder
from dettriton.errors import InputError, IntegrityError

SINUS = "Dx: 426783006"


def rhythms(label: torch.Tensor) -> set[str]:
    return {c for c, flag in zip(RHYTHM, label.tolist(), strict=True) if flag}


def test_verify_records_leads_and_labels(tmp_path):
    order = [5, 3, 0, 1, 2, 4, 11, 6, 10, 8, 9, 7]
    write_record(tmp_path / "b" / "two", noise(2)[order], [LEADS[i].lower() for i in order], comments=["Age: 7", SINUS])
    write_record(tmp_path / "one", noise(1), comments=["dx : 164889003, 11157007,999"])
    write_record(tmp_path / "a", noise(3), comments=["Dx: 63593006", "Dx: 251180001"])
    found = read_wfdb_folder(tmp_path)
    assert found.dataset.records == ("a", "b/two", "one")
    assert np.array_equal(found.dataset.signals.numpy(), np.stack([noise(3), noise(2), noise(1)]))
    assert [rhythms(label) for label in found.dataset.labels] == [{"TRIGU"}, {"SR"}, {"AFIB", "BIGU"}]
    assert found.codes == (("63593006", "251180001"), ("426783006",), ("164889003", "11157007", "999"))
    assert found.missing_samples.tolist() == [0, 0, 0]
    assert (found.dataset.name, found.dataset.split) == (tmp_path.name, "test")
    own = measure(found.dataset.signals, [1000.0] * 12)
    assert torch.equal(found.dataset.normalisation.std, own.std)
    chosen = read_wfdb_folder(tmp_path, names=("one", "b/two"), leads=("V6", "I"), name="chosen").dataset
    assert chosen.records == ("one", "b/two") and chosen.name == "chosen"
    assert np.array_equal(chosen.signals.numpy(), np.stack([noise(1)[[11, 0]], noise(2)[[11, 0]]]))


def test_verify_the_trained_normalisation_is_taken(tmp_path):
    write_record(tmp_path / "one", noise(1), comments=[SINUS])
    trained = Normalisation(*(torch.full((12,), v) for v in (200.0, 0.25, 0.5)))
    data = read_wfdb_folder(tmp_path, normalisation=trained).dataset
    millivolts = torch.from_numpy(noise(1)).float() / torch.tensor([1000.0])
    assert torch.equal(data.millivolts()[0], millivolts)
    assert torch.equal(data.inputs()[0], (millivolts - torch.tensor([0.25])) / torch.tensor([0.5]))


@pytest.mark.parametrize("rate", [500, 360, 250, 257, "62.5"])
@pytest.mark.parametrize("samples", [200, 12_000])
def test_verify_rate_and_length(tmp_path, rate, samples):
    write_record(tmp_path / "one", noise(1, samples), rate=rate, comments=[SINUS])
    found = read_wfdb_folder(tmp_path).dataset.signals[0].numpy()
    expected = resample(noise(1, samples), Fraction(str(rate)))[:, :1000]
    assert np.array_equal(found[:, : expected.shape[1]], expected)
    assert not found[:, expected.shape[1] :].any()


GAINS = {
    "1000.0(0)/mV": (0, Fraction(1)),
    "1000/mv": (0, Fraction(1)),
    "200(1024)/mV": (1024, Fraction(5)),
    "1.052e+04(-7)/mV": (-7, Fraction(1000, 10520)),
    "304.7(3)/mV": (3, Fraction(10000, 3047)),
    "0.4(0)/uV": (0, Fraction(5, 2)),
    "1e6/V": (0, Fraction(1)),
    "3": (0, Fraction(1000, 3)),
}


@pytest.mark.parametrize("gain", GAINS)
def test_validate_microvolts(tmp_path, gain):
    baseline, ratio = GAINS[gain]
    samples = noise(4)
    samples[0, :9] = baseline + np.arange(-4, 5)
    samples[1, :2] = (-32767, 32767)
    write_record(tmp_path / "one", samples, gain=gain, comments=[SINUS])
    found = read_wfdb_folder(tmp_path).dataset.signals[0]
    for lead, row in zip((0, 1, 11), (samples[0], samples[1], samples[11]), strict=True):
        expected = [min(max(round((int(v) - baseline) * ratio), -32767), 32767) for v in row]
        assert found[lead].tolist() == expected


def test_verify_missing_samples_count_as_zero(tmp_path):
    samples = noise(5)
    samples[2, 10:14] = -32768
    write_record(tmp_path / "one", samples, gain="1000.0(50)/mV", comments=[SINUS])
    found = read_wfdb_folder(tmp_path)
    assert found.missing_samples.tolist() == [4]
    assert found.dataset.signals[0, 2, 9:15].tolist() == [int(samples[2, 9]) - 50, 0, 0, 0, 0, int(samples[2, 14]) - 50]
    physical, _ = load_wfdb().rdsamp(str(tmp_path / "one"))
    assert np.array_equal(np.isnan(physical.T), read_record(tmp_path / "one", "one").invalid(range(12)))


def write(**arguments):
    return lambda folder: write_record(folder / "one", **({"samples": noise(1), "comments": [SINUS]} | arguments))


def write_then(name: str, old: str, new: str):
    def change(folder):
        write()(folder)
        (folder / name).write_text((folder / name).read_text().replace(old, new))

    return change


BROKEN = {
    "no diagnoses": (write(comments=["Age: 3"]), "one has no line .# Dx:. in its header"),
    "missing leads": (write(samples=noise(1, channels=2), leads=("I", "II")), "one lacks leads III, AVR"),
    "a lead twice": (write(leads=("I", *LEADS[:11])), "one lacks lead V6"),
    "unit": (write(gain="1000/mmHg"), "one: lead I has the gain 1000.0 and the unit 'mmHg'"),
    "negative gain": (write(gain="-1000(0)/mV"), "one: lead I has the gain -1000.0"),
    "tiny gain": (write(gain="1e-17/mV"), "one has a gain or samples out of all proportion"),
    "long gain": (write(gain="1000.00000000000001e-300/mV"), "one has a gain or samples out of all proportion"),
    "empty": (write(samples=np.zeros((12, 1), dtype=np.int16), length=0, data=b""), "one"),
    "short": (write(length=1001), "one.*short"),
    "strange rate": (write(rate=100.0001), "cannot resample"),
    "malformed": (write_then("one.hea", "one 12", "one twelve"), "record one"),
    "no signals": (write_then("one.hea", "one 12", "one 0"), "record one"),
    "segments": (write_then("one.hea", "one 12", "one/2 12"), "record one"),
    "frames": (write_then("one.hea", ".dat 16 ", ".dat 16x2 "), "record one"),
    "skew": (write_then("one.hea", ".dat 16 ", ".dat 16:3 "), "record one"),
    "other signal file": (write_then("one.hea", "one.dat", "two.dat"), "record one: .*two.dat is missing"),
    "nothing": (lambda folder: None, "there are no WFDB headers"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_validate_broken_folders(tmp_path, kind):
    change, message = BROKEN[kind]
    change(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read_wfdb_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_validate_refusals(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        read_wfdb_folder(tmp_path / "none")
    write()(tmp_path)
    with pytest.raises(InputError, match=r"two: .*two.hea is missing"):
        read_wfdb_folder(tmp_path, names=["two"])
    with pytest.raises(InputError, match="'SVT', which is not one of the classes"):
        read_wfdb_folder(tmp_path, class_of_code={"426761007": "SVT"})
    write(comments=())(tmp_path)
    assert not read_wfdb_folder(tmp_path, need_diagnoses=False).dataset.labels.any()


def test_validate_wrong_checksum(tmp_path):
    write(checksums=[0] * 12)(tmp_path)
    with pytest.raises(IntegrityError, match="record one: lead I has the checksum"):
        read_wfdb_folder(tmp_path)


def test_validate_map():
    assert set(SNOMED_RHYTHM.values()) == set(RHYTHM) - {"SVARR"}
    assert len(SNOMED_RHYTHM) == 11 and all(code.isdigit() for code in SNOMED_RHYTHM)


@pytest.fixture(scope="module")
def cinc2021(data_dir):
    return read_wfdb_folder(data_dir / "wfdb" / "cinc2021")


@pytest.mark.data
def test_verify_challenge_records(cinc2021):
    data = cinc2021.dataset
    assert data.signals.shape == (50, 12, 1000)
    counted = dict(zip(RHYTHM, data.labels.sum(0).int().tolist(), strict=True))
    assert {c: n for c, n in counted.items() if n} == {"SR": 15, "STACH": 23, "SARRH": 1, "SBRAD": 7}
    assert Counter(code for codes in cinc2021.codes for code in codes)["284470004"] == 20
    assert not cinc2021.missing_samples.any()
    assert data.sha256 == "8fedc3ebd4d16efdedcaf5dd9ff3443fafea14aa634b107f940ec474c3d03f95"


@pytest.mark.data
def test_corroborate_challenge_records_against_wfdb(data_dir, cinc2021):
    for record, signal in zip(cinc2021.dataset.records[::3], cinc2021.dataset.signals[::3], strict=True):
        path = data_dir / "wfdb" / "cinc2021" / record
        physical, fields = load_wfdb().rdsamp(str(path))
        raw = read_record(path, record)
        channels = raw.select(LEADS)
        assert [name.upper() for name in fields["sig_name"]] == list(raw.leads)
        gains = torch.tensor([float(raw.gains[c]) for c in channels])[:, None]
        offsets = raw.samples[channels] - np.array(raw.baselines)[channels][:, None]
        millivolts = torch.from_numpy(offsets).float() / gains
        assert np.array_equal(millivolts.numpy(), physical.T[channels].astype(np.float32))
        filtered = resample_poly(physical[:, channels].T, 1, 5, axis=1, padtype="line")
        assert np.corrcoef(filtered.ravel(), signal.numpy().ravel())[0, 1] > 0.999


SAMPLES = {
    "100": (("MLII", "V5"), 360, 650_000),
    "a103l": (("II", "V"), 250, 82_500),
    "v102s": (("II", "V"), 250, 75_000),
    "s0010_re": (LEADS, 1000, 38_400),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SAMPLES)
def test_verify_sample_records(data_dir, name):
    leads, rate, length = SAMPLES[name]
    folder = data_dir / "wfdb" / "samples"
    raw = read_record(folder / name, name)
    assert (raw.rate, raw.samples.shape[1]) == (rate, length)
    physical, _ = load_wfdb().rdsamp(str(folder / name))
    gains = torch.tensor([float(gain) for gain in raw.gains])[:, None]
    millivolts = torch.from_numpy(raw.samples - np.array(raw.baselines)[:, None]).float() / gains
    missing = raw.invalid(range(len(raw.leads)))
    assert np.array_equal(np.isnan(physical.T), missing)
    assert np.array_equal(np.where(missing, 0, millivolts.numpy()), np.nan_to_num(physical.T).astype(np.float32))
    found = read_wfdb_folder(folder, names=[name], leads=leads, need_diagnoses=False)
    assert found.dataset.signals.shape == (1, len(leads), 1000)
    assert found.missing_samples.item() == missing[raw.select(leads)].sum() == (5 if name == "v102s" else 0)
    with pytest.raises(InputError, match=r"lacks leads|has no line"):
        read_wfdb_folder(folder, names=[name])
    assert math.isfinite(found.dataset.inputs().sum())
