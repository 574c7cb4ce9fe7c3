import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_wfdb import ROWS, database, file_name, make_tree, noise, write_record, write_sums

from dettriton.data import _download, dataset_sha256
from dettriton.data._download import fetch_all
from dettriton.data.ptbxl import read_ptbxl
from dettriton.errors import InputError, IntegrityError

DAT = f"{file_name(3)}.dat"


class Server(http.server.BaseHTTPRequestHandler):
    """Serves a folder, by ranges if asked, and misbehaves where told.

    ``asked`` counts requests by name, ``ranges`` has the ranges asked for; ``cut`` is how many bytes of a body are sent,
    ``refuse`` the statuses of the next answers, by name; ``other`` is the content sent in a file's stead.
    """

    root: Path
    asked: Counter
    ranges: dict[str, str]
    cut: dict[str, int]
    refuse: dict[str, list[int]]
    other: dict[str, bytes]
    knows_ranges = True

    def do_GET(self):
        name = self.path.removeprefix("/base/")
        self.asked[name] += 1
        if self.refuse.get(name):
            return self.send_error(self.refuse[name].pop(0))
        if not (self.root / name).is_file():
            return self.send_error(404)
        body, begin = self.other.get(name, (self.root / name).read_bytes()), 0
        wanted = self.headers.get("Range")
        if wanted:
            self.ranges[name] = wanted
        if wanted and self.knows_ranges:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        end = self.cut.pop(name, len(body))
        return self.wfile.write(body[begin:end])

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(_download, "_PAUSE", 0.001)
    monkeypatch.setenv("DETTRITON_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server(tmp_path) -> Iterator[type[Server]]:
    make_tree(tmp_path / "served")
    write_sums(tmp_path / "served")
    state = {"asked": Counter(), "ranges": {}, "cut": {}, "refuse": {}, "other": {}}
    handler = type("Handler", (Server,), state | {"root": tmp_path / "served"})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        handler.url = f"http://127.0.0.1:{listening.server_port}/base/"
        yield handler
        listening.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def get(server: type[Server], folder: Path, **arguments):
    return read_ptbxl("rhythm", folder, download=True, base_url=server.url, **arguments)


def test_verify_download(tmp_path, server):
    data = tmp_path / "new" / "data"
    splits = get(server, data)
    assert contents(data / "ptb-xl-1.0.3") == contents(server.root)
    assert dataset_sha256(splits) == dataset_sha256(read_ptbxl("rhythm", server.root))
    assert set(server.asked.values()) == {1} and not server.ranges
    assert dataset_sha256(get(server, data)) == dataset_sha256(splits)
    assert set(server.asked.values()) == {1}
    server.url = server.url.rstrip("/")
    get(server, tmp_path / "again")


def test_verify_only_what_is_missing_is_fetched(tmp_path, server):
    get(server, tmp_path, ids=(1, 3))
    assert set(server.asked) == {"SHA256SUMS.txt", "LICENSE.txt", "ptbxl_database.csv", "scp_statements.csv"} | {
        f"{file_name(n)}{suffix}" for n in (1, 3) for suffix in (".hea", ".dat")
    }
    (tmp_path / "ptb-xl-1.0.3" / DAT).unlink()
    server.asked.clear()
    assert len(get(server, tmp_path, ids=(1, 3))["val"]) == 1
    assert server.asked == {DAT: 1}


def test_verify_an_interrupted_file_is_resumed(tmp_path, server):
    whole = (server.root / DAT).read_bytes()
    partial = tmp_path / "ptb-xl-1.0.3" / f"{file_name(3).rsplit('/', 1)[0]}/.00003_lr.dat.download"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(whole[:10_000])
    get(server, tmp_path)
    assert server.ranges == {DAT: "bytes=10000-"} and server.asked[DAT] == 1
    assert contents(tmp_path / "ptb-xl-1.0.3") == contents(server.root)


def test_verify_a_cut_connection_is_resumed_at_once(tmp_path, server):
    server.cut[DAT] = 7777
    get(server, tmp_path)
    assert server.ranges == {DAT: "bytes=7777-"} and server.asked[DAT] == 2
    assert contents(tmp_path / "ptb-xl-1.0.3") == contents(server.root)


def test_verify_what_arrived_stays_for_the_next_call(tmp_path, server, monkeypatch):
    monkeypatch.setattr(_download, "_ATTEMPTS", 1)
    server.cut[DAT] = 5000
    with pytest.raises(InputError, match=r"00003_lr.dat could not be fetched: .*what has arrived is kept") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    get(server, tmp_path)
    assert server.ranges == {DAT: "bytes=5000-"}
    assert contents(tmp_path / "ptb-xl-1.0.3") == contents(server.root)


@pytest.mark.parametrize("begun", [10_000, 24_000, 30_000])
@pytest.mark.parametrize("knows_ranges", [True, False])
def test_verify_a_wrong_beginning_is_fetched_anew(tmp_path, server, begun, knows_ranges):
    server.knows_ranges = knows_ranges
    partial = tmp_path / "ptb-xl-1.0.3" / "records100" / "00000" / ".00003_lr.dat.download"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"\1" * begun)
    get(server, tmp_path)
    assert contents(tmp_path / "ptb-xl-1.0.3") == contents(server.root)


def test_validate_a_damaged_file_is_not_kept(tmp_path, server):
    whole = (server.root / DAT).read_bytes()
    server.other[DAT] = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(IntegrityError, match=r"00003_lr.dat has the SHA-256 .* expected") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert not [name for name in contents(tmp_path / "ptb-xl-1.0.3") if "00003_lr.dat" in name]
    del server.other[DAT]
    get(server, tmp_path)
    assert contents(tmp_path / "ptb-xl-1.0.3") == contents(server.root)


def test_verify_a_busy_server_is_asked_again(tmp_path, server):
    server.refuse[DAT] = [503, 429]
    get(server, tmp_path)
    assert server.asked[DAT] == 3


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (500, 4)])
def test_validate_a_refusal(tmp_path, server, status, requests):
    server.refuse[DAT] = [status] * 9
    with pytest.raises(InputError, match=rf"00003_lr.dat could not be fetched: .*{status}"):
        get(server, tmp_path)
    assert server.asked[DAT] == requests
    assert not [name for name in contents(tmp_path / "ptb-xl-1.0.3") if "00003_lr.dat" in name]


def test_validate_an_unlisted_file_is_not_fetched(tmp_path, server):
    sums = server.root / "SHA256SUMS.txt"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if DAT not in line))
    with pytest.raises(InputError, match=r"does not list 1 wanted files, the first is records100/00000/00003_lr.dat"):
        get(server, tmp_path)
    assert DAT not in server.asked


def test_verify_a_folder_that_is_there_is_completed(tmp_path, server):
    folder = tmp_path / "ptbxl"
    make_tree(folder, {n: ROWS[n] for n in (1, 3)}, records=(1,))
    splits = get(server, tmp_path)
    assert [len(data) for data in splits.values()] == [1, 1, 0]
    assert set(server.asked) == {"SHA256SUMS.txt", DAT, DAT.replace(".dat", ".hea")}
    write_record(folder / file_name(1), noise(77))
    with pytest.raises(IntegrityError, match=r"record records100/00000/00001_lr: .*SHA-256"):
        get(server, tmp_path, cache_dir=tmp_path / "empty")
    assert (folder / "ptbxl_database.csv").read_text() == database({n: ROWS[n] for n in (1, 3)})


def test_validate_a_folder_that_cannot_be_written(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot store"):
        get(server, tmp_path / "file")


def test_validate_unreachable_server(tmp_path):
    with pytest.raises(InputError, match="Check the network"):
        read_ptbxl("rhythm", tmp_path, download=True, base_url="http://127.0.0.1:9/")
    assert not contents(tmp_path)


def test_validate_other_protocols_are_refused(tmp_path):
    with pytest.raises(InputError, match="http or https"):
        fetch_all("file:///etc/", {"passwd": None}, tmp_path, "")


def test_validate_ctrl_c_stops_the_rest(tmp_path, server, monkeypatch):
    monkeypatch.setattr(_download, "_WORKERS", 1)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_download, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path)
    assert not server.asked


def test_verify_progress_shows_in_a_terminal(tmp_path, server, monkeypatch, capsys):
    from dettriton.data import _progress

    monkeypatch.setattr(_progress, "_WORTH_SHOWING", 0)
    monkeypatch.setattr(_progress.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    get(server, tmp_path)
    assert "fetching PTB-XL" in capsys.readouterr().err


def test_validate_a_planted_link_is_not_written_through(tmp_path, server):
    (tmp_path / "victim").write_bytes(b"mine")
    folder = tmp_path / "ptb-xl-1.0.3" / "records100" / "00000"
    folder.mkdir(parents=True)
    (folder / ".00003_lr.dat.download").symlink_to(tmp_path / "victim")
    get(server, tmp_path)
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert contents(tmp_path / "ptb-xl-1.0.3") == contents(server.root)
