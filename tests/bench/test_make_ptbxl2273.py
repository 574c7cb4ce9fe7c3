import sys

import make_ptbxl2273
import numpy as np

from dettriton import data

HEADER = "ecg_id,split,NORM,MI,STTC,CD,HYP,meta_known,rhythm,strat_fold,patient_id,raw100,raw500,proc500\n"
ROWS = [
    "7,train,1,0,0,0,0,1,SR,3,1,1,1,0\n",
    "2,train,0,1,0,1,0,1,SBRAD|SARRH,2,2,1,1,0\n",
    "9,train,0,0,0,0,0,0,,2,3,1,1,0\n",
    "4,val,0,0,1,0,0,1,AFIB,9,4,1,1,0\n",
    "5,test,0,0,0,0,1,1,STACH,10,5,1,1,0\n",
]
IDS = (2, 7, 9, 5, 4)


def test_both_sets(tmp_path, monkeypatch, capsys):
    waves = np.random.default_rng(0).normal(size=(5, 1000, 12)).astype(np.float16)
    np.savez(tmp_path / "ptbxl_uniform100_f16.npz", X=waves, ecg_id=np.array(IDS, np.int32))
    (tmp_path / "labels.csv").write_text(HEADER + "".join(ROWS))
    monkeypatch.setattr(sys, "argv", ["make_ptbxl2273", str(tmp_path), str(tmp_path / "out")])
    assert make_ptbxl2273.main() == 0
    rhythm, superclass = (data.load(f"npz:ptbxl2273_{task}", tmp_path / "out") for task in ("rhythm", "superclass"))
    # records come in the order of the signals; the one of unknown rhythm is in the second set only
    assert rhythm["train"].labels.tolist() == [[0, 0, 0, 1, 1], [1, 0, 0, 0, 0]]
    assert superclass["train"].labels.tolist() == [[0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert rhythm["val"].labels.tolist() == [[0, 1, 0, 0, 0]] and rhythm["test"].labels.tolist() == [[0, 0, 1, 0, 0]]
    exact = np.abs(rhythm["test"].millivolts().numpy()[0] - waves[3].T.astype(np.float64))
    assert 0 < exact.max() <= 2**-11
    assert "positives [1, 0, 0, 1, 1]" in capsys.readouterr().out
