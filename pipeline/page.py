"""HTML pages for people: one file each that needs no other and no script, on a telephone and in the dark too."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from lmworks.tfx.readable import metric

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--paper:#fff;--faint:#6b7480;--line:#d8dde3;--shade:#0004;
--blue:31,119,180;--red:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7eb;--paper:#15181c;--faint:#98a2ae;--line:#343b44;--shade:#000c;
--blue:88,166,255;--red:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:64rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:clamp(1.35rem,5vw,2rem);line-height:1.25;overflow-wrap:anywhere}
h2{font-size:clamp(1.1rem,4vw,1.5rem);margin:1.6rem 0 .5rem}
.wide{overflow-x:auto;background-color:var(--paper);background-repeat:no-repeat;
background-attachment:local,local,scroll,scroll;background-position:0 0,100% 0,0 0,100% 0;
background-size:3rem 100%,3rem 100%,.8rem 100%,.8rem 100%;
background-image:linear-gradient(90deg,var(--paper) 40%,transparent),linear-gradient(270deg,var(--paper) 40%,transparent),
linear-gradient(90deg,var(--shade),transparent),linear-gradient(270deg,var(--shade),transparent)}
table{border-collapse:collapse;margin:.5rem 0}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--faint);font-weight:600}td.n,th.n{text-align:right}
td.n,td.figure{font-variant-numeric:tabular-nums;white-space:nowrap}
pre{white-space:pre-wrap;overflow-wrap:anywhere;max-height:20rem;overflow-y:auto;border-left:3px solid var(--line);
padding-left:.8rem}
li,.text{overflow-wrap:anywhere}td.text{white-space:pre-wrap;min-width:16rem}td.note{min-width:12rem}
td.cell{background:rgba(var(--blue),var(--share))}
.share{display:inline-block;height:.8rem;background:rgb(var(--blue))}
.note{color:var(--faint)}.bad{color:var(--red);font-weight:600}
svg{max-width:100%}svg text{font-size:11px;fill:var(--faint)}.bar{fill:rgba(var(--blue),.5)}
.dot{fill:rgb(var(--blue))}.axis,.diagonal{stroke:var(--faint);fill:none}.diagonal{stroke-dasharray:4}
"""
"""With a shadow at the side where a table that is too wide goes on."""
_NUMBER = re.compile('<td class="n[ "]')


def cell(value: Any, kind: str = "") -> str:
    """Returns a cell of an HTML table; whole numbers with separators, others as metrics."""
    if isinstance(value, int | np.integer):
        return f'<td class="n">{value:,}</td>'
    if isinstance(value, float):
        return f'<td class="n">{metric(value)}</td>'
    return f'<td class="{kind}">{html.escape(str(value))}</td>'


def table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns an HTML table; the rows' cells are HTML already, the header's are not.

    A column's name stands on the side where its values stand: numbers on the right.
    """
    rows = list(rows)
    first: Sequence[str] = rows[0] if rows else ()
    head = "".join(
        f"<th{' class=n' if _NUMBER.match(value) else ''}>{html.escape(name)}</th>"
        for name, value in zip_longest(header, first, fillvalue="")
    )
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def page(title: str, sections: Mapping[str, str]) -> str:
    """Returns one HTML page that needs no other file and no script; the sections' contents are HTML already."""
    body = "".join(f"<h2>{name}</h2>{content}" for name, content in sections.items())
    title = html.escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )
