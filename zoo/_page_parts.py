"""The fixed parts of the zoo's page: its style, its script, and the frame that allows nothing else to run or load."""

import hashlib
from base64 import b64encode
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #d0d4da; --soft: #f4f5f7; --text: #1a1d21; --quiet: #565d66; --link: #0b57b0;
  --page: #ffffff; --good: #17693a; --bad: #a3231b; }
@media (prefers-color-scheme: dark) { :root { --line: #3b4149; --soft: #1e2227; --text: #e6e8eb; --quiet: #a4abb4;
  --link: #86b7ff; --page: #131619; --good: #6fd195; --bad: #ff938a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 82rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
a { color: var(--link); overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2, h3 { overflow-wrap: anywhere; line-height: 1.25; }
h2 { font-size: 1.25rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; margin: .4rem 0; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .5rem; text-align: left; vertical-align: top; }
.wide { overflow-x: auto; }
.models { font-size: .9rem; }
.models a { overflow-wrap: break-word; }
.models code { display: inline-block; min-width: 12ch; }
.plain { width: auto; }
section { border-top: 2px solid var(--line); margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: .6rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
button { font: inherit; font-size: .8rem; padding: .15rem .6rem; min-height: 1.75rem; color: var(--link);
  background: var(--soft); border: 1px solid var(--line); border-radius: .3rem; cursor: pointer; }
summary { cursor: pointer; padding: .3rem 0; color: var(--link); }
.quiet { color: var(--quiet); }
.same { color: var(--good); }
.different { color: var(--bad); font-weight: bold; overflow-wrap: anywhere; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.curve { display: block; width: 100%; max-width: 34rem; }
.curve text { fill: var(--quiet); font: 10px system-ui, sans-serif; }
.curve .axis { fill: none; stroke: var(--line); }
.curve polyline { fill: none; stroke: var(--link); }
.curve circle { fill: var(--link); }
@media (max-width: 900px) {
  .models thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .models, .models tbody, .models tr, .models th, .models td { display: block; }
  .models tr { border: 1px solid var(--line); border-radius: .4rem; margin-bottom: 1rem; padding: .3rem; }
  .models th, .models td { border: 0; padding: .2rem .4rem; overflow-wrap: anywhere; }
  .models td::before { content: attr(data-label) ": "; color: var(--quiet); }
  .models code { display: inline; min-width: 0; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  button { min-height: 2.75rem; padding: .15rem 1rem; }
}
"""

SCRIPT = """
"use strict";
const said = document.getElementById("said");
const byHand = (text) => {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
};
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.dataset.copy;
    let done = false;
    try { await navigator.clipboard.writeText(text); done = true; } catch { done = byHand(text); }
    button.focus();
    button.textContent = done ? "Copied" : "Select it by hand";
    said.textContent = done ? "Copied " + text : "Copying is not allowed here";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
"""


def frame(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML of the ``main`` element.
    """
    # the digests of the page's own style and script are all that a browser may apply: no text can become code
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
<p id="said" class="hidden" role="status"></p>
<script>{SCRIPT}</script>
</body>
</html>
"""


def copyable(text: str, what: str) -> str:
    """Code with a button that copies it; the button shows where scripts run."""
    label = escape(f"Copy {what}")
    return (
        f'<code>{escape(text)}</code> <button type="button" hidden data-copy="{escape(text)}" '
        f'aria-label="{label}">Copy</button>'
    )


def _source(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
