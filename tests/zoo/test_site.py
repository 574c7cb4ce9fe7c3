"""The zoo's page: well-formed, true to the manifest, closed to other origins and to hostile text."""

import hashlib
import json
import math
import shutil
import struct
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_training as tiny
from click.testing import CliRunner

from dettriton import zoo
from dettriton.cli import main
from dettriton.errors import InputError, IntegrityError
from dettriton.train.trace import read_trace
from dettriton.zoo import _manifest
from dettriton.zoo._class_report import ClassFigures, ClassReport
from dettriton.zoo._curve import Curve, curve_svg, read_curve
from dettriton.zoo._facts import gather
from dettriton.zoo._matrix import Matrix
from dettriton.zoo._page_parts import SCRIPT, STYLE, frame
from dettriton.zoo._site import Shown, site_html, write_site

NAME = "tiny.made"
HOSTILE = '</script><script>alert(\'1\')</script>"><img src=x onerror="alert(2)"> &amp; é'
VOID = {"meta", "link", "wbr"}


class Page(HTMLParser):
    """All elements and texts of a page in which every element is closed by its own end tag."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self._open = [], [], []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"an attribute occurs twice: {attributes}"
        self.elements.append(SimpleNamespace(tag=tag, attributes=dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else None, data))

    def all(self, tag, **attributes):
        return [
            e for e in self.elements if e.tag == tag and all(e.attributes.get(k) == v for k, v in attributes.items())
        ]

    def values(self, attribute):
        return [e.attributes[attribute] for e in self.elements if attribute in e.attributes]

    def text(self):
        return "".join(text for tag, text in self.texts if tag not in ("script", "style"))


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return write_site(tmp_path_factory.mktemp("site")).read_text(encoding="utf-8")


@pytest.fixture
def root(monkeypatch, tmp_path):
    return tiny.release(monkeypatch.setattr, tmp_path)


@pytest.fixture
def runs(root, tmp_path):
    shutil.copytree(tmp_path / "run", tmp_path / "runs" / NAME)
    return tmp_path / "runs"


def test_verify_page_shows_every_digest_and_can_copy_it(html):
    page, text = Page(html), Page(html).text()
    copied = page.values("data-copy")
    assert len(zoo.names()) >= 10
    for name in zoo.names():
        entry = zoo.entry(name)
        for digest in (entry.weights_digest, entry.file_sha256, entry.init_digest, entry.trace, entry.dataset_sha256):
            assert digest in text
            assert digest in copied
        assert f"{entry.test['auc']:.4f} / {entry.test['acc']:.4f}" in text
        assert f"{entry.validation['auc']:.4f} / {entry.validation['acc']:.4f}" in text
        assert _manifest.recipe_path(name).read_text().strip() in text
    assert "dettriton verify" in copied
    assert "dettriton verify med_cnn.bloodmnist --data-dir DIR" in copied


def test_verify_page_loads_nothing(html):
    page = Page(html)
    assert not {e.tag for e in page.elements} & {"img", "iframe", "object", "embed", "base", "form", "audio", "video"}
    assert page.values("src") == page.values("srcset") == page.values("style") == []
    assert [e.attributes["href"] for e in page.all("link")] == ["data:,"]
    assert all(e.tag in ("a", "link") for e in page.elements if "href" in e.attributes)
    assert not any(attribute.startswith("on") for e in page.elements for attribute in e.attributes)
    assert not any(word in STYLE + SCRIPT for word in ("url(", "@import", "http", "fetch", "import("))


def test_verify_policy_allows_only_the_pages_own_style_and_script(html):
    (policy,) = (e.attributes["content"] for e in Page(html).all("meta") if "http-equiv" in e.attributes)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (text,) = (t for tag, t in Page(html).texts if tag == kind)
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_verify_page_works_on_a_phone_and_without_a_mouse(html):
    page = Page(html)
    assert page.all("meta", name="viewport", content="width=device-width, initial-scale=1")
    assert all("aria-label" in e.attributes and e.attributes["type"] == "button" for e in page.all("button"))
    cells = page.all("td", role="cell")
    assert len(cells) == 7 * len(zoo.names())
    assert all(e.attributes["data-label"] for e in cells)
    assert "(max-width: 900px)" in STYLE
    assert "(prefers-color-scheme: dark)" in STYLE


def test_verify_links_and_labels_lead_somewhere(html):
    page = Page(html)
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    inside = [h.removeprefix("#") for h in page.values("href") if h.startswith("#")]
    assert len(inside) == len(zoo.names())
    assert {*inside, *page.values("aria-labelledby")} <= set(ids)


def test_verify_same_inputs_give_the_same_bytes(html, tmp_path):
    assert write_site(tmp_path / "new" / "folder").read_text(encoding="utf-8") == html
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["index.html"]


def test_verify_hostile_text_stays_text(root):
    facts = gather(NAME)
    hostile = replace(
        facts,
        entry=replace(facts.entry, name=HOSTILE, licence=HOSTILE, data_licence=HOSTILE),
        recipe_text=HOSTILE,
        info=replace(facts.info, name=HOSTILE, title=HOSTILE, url="javascript:alert(3)"),
    )
    report = ClassReport(1, 0.5, 0.5, (ClassFigures(HOSTILE, 1, None, 0.5),))
    page = Page(site_html([Shown(hostile, report, Curve((1.0, 0.5), (0.5, 1.0)))]))
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert page.text().count(HOSTILE) >= 8
    assert not any(attribute.startswith("on") for e in page.elements for attribute in e.attributes)
    assert not any(h.startswith("javascript") for h in page.values("href"))
    assert Page(frame(HOSTILE, "")).text().count(HOSTILE) == 1


def test_verify_what_was_not_measured_is_left_out(root, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    text = write_site(tmp_path / "out", runs=empty, reports=empty).read_text()
    assert "<svg" not in text
    assert "Class by class" not in text
    assert text == write_site(tmp_path / "out").read_text()


def test_verify_curve_is_the_runs(runs):
    curve, entry = read_curve(runs / NAME, gather(NAME)), zoo.entry(NAME)
    losses = [struct.unpack(">f", bytes.fromhex(r["loss"]))[0] for r in read_trace(runs / NAME / "trace.jsonl")]
    steps = len(losses) // 3
    assert curve.losses == tuple(math.fsum(losses[i * steps : (i + 1) * steps]) / steps for i in range(3))
    assert curve.aucs[entry.best_epoch] == max(curve.aucs) == entry.validation["auc"]


def test_verify_curve_without_a_checkpoint_has_losses_only(runs, tmp_path):
    whole = Page(write_site(tmp_path / "out", runs=runs).read_text())
    for path in (runs / NAME).glob("checkpoint-*"):
        path.unlink()
    assert read_curve(runs / NAME, gather(NAME)).aucs is None
    losses = Page(write_site(tmp_path / "out", runs=runs).read_text())
    assert (len(whole.all("polyline")), len(losses.all("polyline"))) == (2, 1)
    assert (len(whole.all("circle")), len(losses.all("circle"))) == (6, 3)


@pytest.mark.parametrize("change", ["loss", "length", "nothing", "not a trace"])
def test_verify_curve_of_another_training_is_refused(runs, change):
    path = runs / NAME / "trace.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    changed = {
        "loss": [json.dumps(first | {"loss": "3f800000"}) + "\n", *lines[1:]],
        "length": lines[:-1],
        "nothing": [],
        "not a trace": ["3\n"],
    }
    path.write_text("".join(changed[change]))
    with pytest.raises(InputError, match=r"trace\.jsonl"):
        read_curve(runs / NAME, gather(NAME))


def test_verify_damaged_checkpoints_are_told(runs, tmp_path):
    for path in (runs / NAME).glob("checkpoint-*"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="damaged"):
        write_site(tmp_path / "out", runs=runs)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("values", [(0.5,), (0.5, 0.5, 0.5), (2.0, 0.0)])
def test_verify_curves_stay_inside_their_picture(values):
    page = Page(curve_svg(Curve(values, values), "a curve"))
    width, height = (float(v) for v in page.values("viewbox")[0].split()[2:])
    assert all(0 <= float(x) <= width for x in page.values("cx"))
    assert all(0 <= float(y) <= height for y in page.values("cy"))
    assert len(page.all("circle")) == 2 * len(values)


def test_verify_higher_values_are_drawn_higher():
    ys = [float(y) for y in Page(curve_svg(Curve((0.1, 0.9, 0.5), None), "a curve")).values("cy")]
    assert ys[1] < ys[2] < ys[0]


def test_verify_command_writes_the_page_with_the_classes(runs, tmp_path):
    (tmp_path / "reports").mkdir()
    report = CliRunner().invoke(main, ["evaluate", NAME, "--json"])
    (tmp_path / "reports" / f"{NAME}.json").write_text(report.stdout)
    arguments = ["--out", tmp_path / "out", "--runs", runs, "--reports", tmp_path / "reports"]
    result = CliRunner().invoke(main, ["zoo", "site", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"wrote {tmp_path / 'out' / 'index.html'}\n"
    html = (tmp_path / "out" / "index.html").read_text()
    for row in json.loads(report.stdout)["classes"]:
        cells = f"<td>{row['auc']:.4f}</td><td>{row['f1']:.4f}</td><td>{row['positives']}</td>"
        assert f'<tr><th scope="row">{row["name"]}</th>{cells}</tr>' in html
    assert "<svg" in html


@pytest.mark.parametrize("option", ["--runs", "--reports", "--environments"])
def test_verify_missing_inputs_exit_2(root, tmp_path, option):
    result = CliRunner().invoke(main, ["zoo", "site", "--out", str(tmp_path / "out"), option, str(tmp_path / "none")])
    assert result.exit_code == 2
    assert str(tmp_path / "none") in result.stderr
    assert not (tmp_path / "out").exists()


def test_verify_unusable_folder_exits_2(root, tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["zoo", "site", "--out", str(tmp_path / "file" / "below")])
    assert result.exit_code == 2
    assert "choose another --out" in result.stderr


def results(tmp_path: Path, rows: dict) -> Path:
    entry = zoo.entry(NAME)
    content = {"benchmark": "environments", "device": "cpu", "environment": entry.environments[0]}
    (tmp_path / "environments-x.json").write_text(json.dumps(content | {"results": {NAME: rows}}))
    return tmp_path / "environments-x.json"


def test_verify_matrix_says_same_only_of_the_released_bits(root, tmp_path):
    entry = zoo.entry(NAME)
    same = {key: getattr(entry, key) for key in ("weights_digest", "trace", "recipe_digest")}
    rows = {
        "1 thread": same,
        "2 threads": same | {"weights_digest": "f" * 64},
        "losses": same | {"trace": "e" * 64},
        "old": same | {"recipe_digest": "d" * 64},
        "did not run": {"skipped": "no such library"},
    }
    path = results(tmp_path, rows)
    assert Matrix(path).verdicts(entry) == [
        ("1 thread", "same"),
        ("2 threads", f"DIFFERENT: {'f' * 64}"),
        ("losses", "DIFFERENT losses, same weights"),
        ("old", "trained by another recipe"),
    ]
    html = write_site(tmp_path / "out", environments=path).read_text()
    assert html.count('<span class="same">') == 1
    assert html.count('<span class="different">') == 3


def test_verify_committed_results_can_be_shown():
    folder = Path(__file__).resolve().parents[2] / "bench" / "results"
    if not folder.exists():
        pytest.skip("only the tests are here")
    (path,) = folder.glob("environments-*.json")
    assert len(Matrix(path).verdicts(zoo.entry("med_cnn.digits"))) >= 5


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"benchmark": "speed"}', "[" * 100_000])
def test_verify_other_results_files_are_refused(tmp_path, content):
    (tmp_path / "e.json").write_text(content)
    with pytest.raises(InputError, match=r"environments-\*\.json"):
        Matrix(tmp_path / "e.json")
