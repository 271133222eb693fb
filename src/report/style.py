"""The frame and the style of report pages: one file, no network, light and dark, phone and desktop."""

import html
from collections.abc import Sequence

STYLE = """
:root{color-scheme:light dark;--back:#f5f6f8;--card:#fff;--text:#1b1f24;--soft:#5d6671;--line:#dde1e6;--good:#1a7f4b;
--bad:#b42318;--wait:#8a5a00;--c0:#2563c9;--c1:#c2410c;--c2:#15803d;--c3:#9333ea;--c4:#0e7490;--c5:#a16207}
@media(prefers-color-scheme:dark){:root{--back:#101317;--card:#191d23;--text:#e7eaee;--soft:#9ba5b1;--line:#2d343d;
--good:#4cc38a;--bad:#ff8a7a;--wait:#f0b429;--c0:#6ea8fe;--c1:#fb923c;--c2:#4ade80;--c3:#c084fc;--c4:#22d3ee;
--c5:#facc15}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1.5rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.15rem;margin:32px 0 4px}
p{margin:0 0 12px}.soft,.none,figcaption+.none{color:var(--soft)}.soft{font-size:.9rem;max-width:75ch}
.state{display:inline-block;font-size:.8rem;font-weight:600;padding:2px 10px;border-radius:99px;border:1px solid;
vertical-align:middle;margin-left:8px}
.finished{color:var(--good)}.failed{color:var(--bad)}.stopped,.unfinished{color:var(--wait)}
.error{border-left:4px solid var(--bad);background:var(--card);padding:10px 14px;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(148px,1fr));gap:10px;margin:16px 0}
.tile,figure,.box{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:10px 14px}.tile b{display:block;font-size:1.4rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.8rem;display:block}.first b{font-size:1.9rem;color:var(--c0)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,275px),1fr));gap:12px;align-items:start}
figure{margin:0;padding:12px 12px 6px;min-width:0}figcaption{font-weight:600;font-size:.95rem}
svg{display:block;width:100%;height:auto;margin-top:4px}
svg text{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}svg path{fill:none;stroke-width:1.8;
stroke-linejoin:round}.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.even{stroke:var(--soft);stroke-dasharray:4 4}
path.c0{stroke:var(--c0)}path.c1{stroke:var(--c1)}path.c2{stroke:var(--c2)}path.c3{stroke:var(--c3)}
path.c4{stroke:var(--c4)}path.c5{stroke:var(--c5)}
rect.c0,circle.c0{fill:var(--c0)}rect.c1,circle.c1{fill:var(--c1)}circle.c2{fill:var(--c2)}circle.c3{fill:var(--c3)}
circle.c4{fill:var(--c4)}circle.c5{fill:var(--c5)}rect{fill-opacity:.6}
.legend{margin:2px 0 0;font-size:.8rem;color:var(--soft);display:flex;flex-wrap:wrap;gap:2px 14px}
.legend span::before{content:"";display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
.legend .c0::before{background:var(--c0)}.legend .c1::before{background:var(--c1)}
.legend .c2::before{background:var(--c2)}.legend .c3::before{background:var(--c3)}
.legend .c4::before{background:var(--c4)}.legend .c5::before{background:var(--c5)}
.box{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom}tr:last-child td{border-bottom:0}
td:first-child,th:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
.facts td{white-space:normal;overflow-wrap:anywhere;text-align:left}.facts td:first-child{color:var(--soft);width:38%}
details{margin:8px 0}summary{cursor:pointer;padding:8px 0;font-weight:600}
.few{grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));max-width:960px}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:0 12px;align-items:start}
"""


def page(title: str, body: str, language: str = "en") -> str:
    """A whole HTML page."""
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><link rel="icon" href="data:,"><title>{html.escape(title)}'
        f"</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def tile(name: str, value: str, more: str = "", first: bool = False) -> str:
    """A figure in large type; all words are text."""
    name, value, more = map(html.escape, (name, value, more))
    return f'<div class="tile{" first" if first else ""}"><span>{name}</span><b>{value}</b><span>{more}</span></div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of texts in a box of its own, which scrolls sideways if need be."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="box {kind}"><table>{f"<tr>{head}</tr>" if heads else ""}{lines}</table></div>'


def section(title: str, text: str, content: str) -> str:
    """A heading, a line on what it shows, and the content, which is HTML."""
    return f'<section><h2>{html.escape(title)}</h2><p class="soft">{html.escape(text)}</p>{content}</section>'
