import plot_rhythms


def test_a_folder_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert plot_rhythms.main(["--out", str(tmp_path / "file" / "folder")]) == plot_rhythms.CANNOT_RUN
    assert "cannot draw" in capsys.readouterr().err


def test_draws_every_lead_of_one_rhythm(tmp_path):
    assert plot_rhythms.main(["--out", str(tmp_path), "--rhythm", "BIGU"]) == plot_rhythms.DRAWN
    assert (tmp_path / "BIGU.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "BIGU.svg").read_text()


def test_traces():
    overview = plot_rhythms.traces(0, 0, None)
    assert len(overview) == 24 and list(overview)[:2] == ["SR II", "SR V1"]
    assert list(plot_rhythms.traces(0, 0, "AFIB"))[-1] == "AFIB V6"
    assert list(plot_rhythms.traces(0, 0, None, ["V6"])) == [f"{name} V6" for name in plot_rhythms.rhythm_sim.CLASSES]
