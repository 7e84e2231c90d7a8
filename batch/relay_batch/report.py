"""A contact sheet of a run: HTML files beside the pictures, which need no server. Faults first."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from .errors import BadOutput
from .manifest import Manifest
from .pictures import SUFFIXES
from .progress import HAS_FAILED, IS_DONE, Progress
from .records import DONE, FAILED, Record, read_record
from .store import Store

ROWS_A_PAGE = 500
MOST_VALUE = 300
STYLE = """
body { font: 14px system-ui, sans-serif; margin: 1.5rem; background: #fafafa; color: #222; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 1rem; }
article { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: .6rem; content-visibility: auto; contain-intrinsic-size: 220px 320px; }
article.failed { border-color: #b00020; grid-column: 1 / -1; }
img { max-width: 100%; height: auto; display: block; margin-bottom: .4rem; }
h2 { font-size: 1rem; margin: 0 0 .4rem; }
dl { margin: 0; } dt { color: #666; font-size: .8rem; } dd { margin: 0 0 .3rem; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; color: #b00020; margin: 0 0 .4rem; }
nav a, nav b { margin-right: .6rem; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } article { background: #222; border-color: #444; } dt { color: #999; } }
"""


def write_report(store: Store, manifest: Manifest, found: Progress) -> str:
    """Writes the sheet, a page for each 500 rows, and returns the first page's name."""
    count = max(1, -(-(found.failed + found.done) // ROWS_A_PAGE))
    records = _records(store, found)
    for number in range(1, count + 1):
        articles = [_article(one) for one in itertools.islice(records, ROWS_A_PAGE)]
        store.replace(page_name(number), _page(manifest, found, number, count, articles).encode())
    return page_name(1)


def page_name(number: int) -> str:
    return "report.html" if number == 1 else f"report-{number}.html"


def _records(store: Store, found: Progress) -> Iterator[Record]:
    for state, outcome in ((HAS_FAILED, FAILED), (IS_DONE, DONE)):
        for index in found.indexes(state):
            try:
                yield read_record(store, index, outcome)
            except (BadOutput, FileNotFoundError) as error:
                yield Record(index, FAILED, error=str(error))


def _page(manifest: Manifest, found: Progress, number: int, count: int, articles: Iterable[str]) -> str:
    links = (
        f"<b>{one}</b>" if one == number else f'<a href="{page_name(one)}">{one}</a>' for one in range(1, count + 1)
    )
    summary = f"{found.rows} rows: {found.done} done, {found.failed} failed, {found.left} left"
    bindings = "".join(f"<dd>{_text(one)}</dd>" for one in manifest.bindings)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{summary}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{summary}</h1>\n<dl><dt>Planned {_text(manifest.planned)}</dt>{bindings}</dl>\n"
        f"<nav>{''.join(links) if count > 1 else ''}</nav>\n<main>\n{''.join(articles)}</main>\n</body></html>\n"
    )


def _article(record: Record) -> str:
    pictures = "".join(_picture(one.name) for one in record.pictures)
    error = f"<pre>{_text(record.error)}</pre>" if record.error else ""
    values = "".join(f"<dt>{_text(address)}</dt><dd>{_value(value)}</dd>" for address, value in record.values.items())
    kind = ' class="failed"' if record.outcome == FAILED else ""
    tries = f", {record.attempts} tries" if record.attempts > 1 else ""
    heading = f"Row {record.index + 1}, {record.seconds:.1f} s{tries}"
    return f"<article{kind}><h2>{heading}</h2>{error}{pictures}<dl>{values}</dl></article>\n"


def _picture(name: str) -> str:
    url = _text(quote(name))
    if PurePosixPath(name).suffix not in SUFFIXES:
        return f'<a href="{url}">{_text(PurePosixPath(name).name)}</a> '
    return f'<a href="{url}"><img src="{url}" loading="lazy" alt=""></a>'


def _value(value: Any) -> str:
    if isinstance(value, dict) and "picture" in value:
        value = value["picture"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _text(text if len(text) <= MOST_VALUE else f"{text[:MOST_VALUE]} ...")


def _text(text: str) -> str:
    return html.escape(text, quote=True)
