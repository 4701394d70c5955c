"""A page as data: sections of text, tables, charts and pictures, written as HTML or Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = [
    "Beside",
    "Chart",
    "Document",
    "Picture",
    "Pictures",
    "Section",
    "Table",
    "Text",
    "Tiles",
]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Tiles:
    """The few numbers to read first: (value, what it is)."""

    tiles: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column is to the left, the others are numbers, to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """SVG text and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Beside:
    """A chart, and to its right, where there is room, what belongs to it."""

    chart: Chart
    blocks: Sequence[Text | Table]


@dataclass(frozen=True)
class Picture:
    """A JPEG, its width over its height, and the line below it."""

    jpeg: bytes
    aspect: float
    alt: str
    caption: str


@dataclass(frozen=True)
class Pictures:
    """A row of pictures of one kind."""

    title: str
    pictures: Sequence[Picture]


Block = Text | Tiles | Table | Chart | Beside | Pictures


@dataclass
class Section:
    """A heading and what is below it. Charts that follow each other stand side by side."""

    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Document:
    """A title, a line below it, and sections."""

    title: str
    subtitle: str
    sections: list[Section]

    def html(self) -> str:
        """One file that needs no other: styles, charts and pictures are inside."""
        body = "".join(_section(section) for section in self.sections)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style></head><body><main>"
            f'<h1>{escape(self.title)}</h1><p class="soft">{escape(self.subtitle)}</p>{body}'
            "</main></body></html>\n"
        )

    def markdown(self) -> str:
        """The numbers: text and tables, for a repository; no charts and no photographs."""
        parts = [f"# {self.title}", self.subtitle]
        for section in self.sections:
            blocks = [text for block in section.blocks if (text := _markdown(block))]
            about_pictures = any(isinstance(block, Pictures) for block in section.blocks)
            if blocks and not about_pictures:
                parts += [f"## {section.title}", *blocks]
        return "\n\n".join(parts) + "\n"


def _section(section: Section) -> str:
    parts, charts = [f"<h2>{escape(section.title)}</h2>"], []
    for block in section.blocks:
        if isinstance(block, Chart):
            charts.append(_block(block))
            continue
        parts += [*_row(charts), _block(block)]
        charts = []
    return f"<section>{''.join(parts + _row(charts))}</section>"


def _row(cells: list[str]) -> list[str]:
    return [f'<div class="charts">{"".join(cells)}</div>'] if cells else []


def _block(block: Block) -> str:
    if isinstance(block, Chart):
        return f"<figure>{block.svg}<figcaption>{escape(block.caption)}</figcaption></figure>"
    if isinstance(block, Beside):
        right = "".join(_block(part) for part in block.blocks)
        return "".join(_row([_block(block.chart), f"<div>{right}</div>"]))
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Tiles):
        tiles = (f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for v, k in block.tiles)
        return f'<div class="tiles">{"".join(tiles)}</div>'
    if isinstance(block, Table):
        head = "".join(f"<th>{escape(cell)}</th>" for cell in block.header)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in block.rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<div class="table">{table}</div>'
    shown = "".join(_picture(picture) for picture in block.pictures)
    return f'<h3>{escape(block.title)}</h3><div class="pictures">{shown}</div>'


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.jpeg).decode("ascii")
    return (
        f'<figure style="--aspect:{picture.aspect:.3f}"><img src="data:image/jpeg;base64,{data}" '
        f'alt="{escape(picture.alt)}"><figcaption>{escape(picture.caption)}</figcaption></figure>'
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Tiles):
        return "\n".join(f"- **{value}** {name}" for value, name in block.tiles)
    if isinstance(block, Table):
        rule = ["---", *["---:"] * (len(block.header) - 1)]
        lines = (list(block.header), rule, *block.rows)
        return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in row)} |" for row in lines)
    if isinstance(block, Beside):
        return "\n\n".join(_markdown(part) for part in block.blocks)
    return ""


STYLE = """
:root{--page:#fff;--ink:#1d2329;--soft:#66707a;--grid:#e3e7ea;--card:#f5f7f8;--c0:#0072b2;
--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#8a949e}
@media(prefers-color-scheme:dark){:root{--page:#14181c;--ink:#e6eaee;--soft:#9aa5af;--grid:#2c343b;
--card:#1d2328;--c0:#56b4e9;--c1:#e69f00;--c2:#2bc495;--c3:#e29cc4;--c4:#7c868f}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px;padding-top:14px;
border-top:1px solid var(--grid)}h3{font-size:15px;margin:20px 0 8px}
p{margin:8px 0;max-width:76ch}.soft,figcaption{color:var(--soft)}
figure{margin:0}figcaption{font-size:13px;margin-top:4px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:10px;margin:14px 0}
.tiles div{background:var(--card);border-radius:8px;padding:10px 14px}
.tiles b{display:block;font-size:22px;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:13px}
.table{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
th{color:var(--soft);font-weight:600;font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:22px;
margin:14px 0}
.charts{align-items:start}.charts svg{width:100%;max-width:520px;height:auto;display:block}
.pictures{display:flex;flex-wrap:wrap;gap:16px}
.pictures figure{flex:var(--aspect) 1 calc(var(--aspect)*190px);max-width:calc(var(--aspect)*290px)}
.pictures img{width:100%;height:auto;display:block;border-radius:4px}
@media print{section{break-inside:avoid}}
"""
