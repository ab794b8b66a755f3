"""How the page of an analysis looks: one style sheet, in light and dark, on screens wide and narrow, and on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfc; --card: #ffffff; --ink: #1d2430; --soft: #5b6472; --line: #dfe2e7; --code: #f4f5f7;
  --alarm: #b3261e; --doubt: #8a5a00; --doubt-paper: #fff6e0; --accent: #1f5fbf; --held: #2a7f9e; --inferred: #8b5cc2;
  --missing: #d5d9df;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --card: #1b1f26; --ink: #e4e7ec; --soft: #9aa4b2; --line: #2f3540; --code: #20252d;
    --alarm: #ff8a80; --doubt: #f2c14e; --doubt-paper: #332a14; --accent: #8ab4f8; --held: #4fb3d4;
    --inferred: #b794f0; --missing: #3a414d;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere;
}
main { max-width: 1140px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 6px; color: var(--alarm); }
h1 small { font-weight: 500; color: var(--soft); font-size: 18px; }
h2 { font-size: 17px; margin: 0; display: inline; }
h3 { font-size: 14px; margin: 18px 0 6px; color: var(--soft); font-weight: 600; }
p { margin: 6px 0; max-width: 78ch; }
a { color: var(--accent); }
.soft, .source { color: var(--soft); }
.source { font-size: 13px; margin: 0 0 10px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 18px;
  margin: 16px 0; }
.verdict { border-left: 5px solid var(--alarm); }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 18px; margin: 8px 0; }
dt { color: var(--soft); }
dd { margin: 0; }
.big { font-size: 19px; font-weight: 650; }
code, pre, .mono, td.mono { font-family: ui-monospace, "Cascadia Mono", Consolas, "DejaVu Sans Mono", monospace; }
code, .mono, td.mono { font-size: 13px; }
pre { font-size: 12.5px; line-height: 1.45; background: var(--code); border-radius: 6px; padding: 10px 12px;
  margin: 8px 0; overflow-x: auto; overflow-wrap: normal; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th, td { padding: 4px 14px 4px 0; vertical-align: top; }
td { border-bottom: 1px solid color-mix(in srgb, var(--line) 55%, transparent); }
td.mono { white-space: nowrap; }
td.value { min-width: 12em; width: 40%; white-space: normal; }
td.name { min-width: 11em; max-width: 40em; white-space: normal; }
td.site { min-width: 22em; max-width: 60em; white-space: normal; }
td.long { min-width: 16em; }
tr.guess td { background: var(--doubt-paper); }
tr.suspect td { font-weight: 650; }
.tag { display: inline-block; font-size: 12px; border: 1px solid currentColor; border-radius: 9px; padding: 0 7px;
  color: var(--soft); white-space: nowrap; font-weight: 400; }
.tag.alarm { color: var(--alarm); } .tag.doubt { color: var(--doubt); }
tr.hit td { background: color-mix(in srgb, var(--alarm) 10%, transparent); }
details { border-top: 1px solid var(--line); padding: 12px 0; }
details > summary { cursor: pointer; padding: 2px 0; }
details > summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 3px; }
details details { border-top: 0; padding: 4px 0 4px 14px; }
svg.map { width: 100%; height: auto; display: block; margin: 8px 0; }
svg.map text { font: 9px ui-monospace, Consolas, monospace; fill: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); }
.legend svg { width: 14px; height: 14px; vertical-align: -2px; margin-right: 5px; }
.k0 { fill: var(--missing); } .k8 { fill: var(--held); }
.k1 { fill: color-mix(in srgb, var(--held) 22%, var(--missing)); }
.k2 { fill: color-mix(in srgb, var(--held) 32%, var(--missing)); }
.k3 { fill: color-mix(in srgb, var(--held) 42%, var(--missing)); }
.k4 { fill: color-mix(in srgb, var(--held) 52%, var(--missing)); }
.k5 { fill: color-mix(in srgb, var(--held) 62%, var(--missing)); }
.k6 { fill: color-mix(in srgb, var(--held) 72%, var(--missing)); }
.k7 { fill: color-mix(in srgb, var(--held) 84%, var(--missing)); }
.hole { fill: none; stroke: var(--line); stroke-width: 0.5; }
.bad { fill: var(--alarm); } .inferred { fill: var(--inferred); }
footer { color: var(--soft); font-size: 13px; margin-top: 28px; }
@media (max-width: 640px) {
  main { padding: 14px 12px 32px; }
  h1 { font-size: 20px; }
  .card { padding: 10px 12px; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 8px; }
  /* The return address is the next frame's place. */
  table.stack tr > :nth-child(3) { display: none; }
  td.site { min-width: 14em; }
}
@media print {
  :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --code: #f6f6f6; }
  main { max-width: none; padding: 0; }
  body { font-size: 11px; }
  pre, .scroll { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .card, tr, pre { break-inside: avoid; }
}
"""
