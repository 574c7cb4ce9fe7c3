import sys

import plot_rhythms
import pytest


def test_needs_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plot_rhythms.main(["--out", str(tmp_path)]) == plot_rhythms.CANNOT_RUN
    assert "pip install matplotlib" in capsys.readouterr().err


def test_draws_every_lead_of_one_rhythm(tmp_path):
    pytest.importorskip("matplotlib")
    assert plot_rhythms.main(["--out", str(tmp_path), "--rhythm", "BIGU"]) == plot_rhythms.DRAWN
    assert (tmp_path / "BIGU.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "BIGU.svg").read_text()


def test_traces():
    overview = plot_rhythms.traces(0, 0, None)
    assert len(overview) == 24 and list(overview)[:2] == ["SR II", "SR V1"]
    assert list(plot_rhythms.traces(0, 0, "AFIB"))[-1] == "AFIB V6"
