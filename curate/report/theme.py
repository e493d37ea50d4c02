"""Colours and chart style, light and dark, as CSS."""

CHART_STYLE = """
.chart { display: block; width: 100%; height: auto; font: 12px/1.2 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
.chart text { fill: var(--ink); }
.chart .quiet { fill: var(--quiet); }
.chart .strong { font-weight: 600; }
.chart .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 3px;
  stroke-linejoin: round; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .zero { stroke: var(--quiet); stroke-width: 1; }
.chart .pillar { stroke: var(--pale); stroke-width: 1.25; }
.chart .dashed { stroke-dasharray: 3 3; }
.chart .link { stroke: var(--quiet); stroke-width: .75; opacity: .6; }
.chart .curve { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.chart .whisker { stroke-width: 2; stroke-linecap: round; }
.chart .band { opacity: .14; }
.chart .ring { fill: none; stroke-width: 2; }
.chart .hollow { fill: var(--paper); stroke-width: 2; }
.chart .track { fill: var(--line); opacity: .55; }
.chart .fill-main { fill: var(--main); } .chart .line-main { stroke: var(--main); }
.chart .fill-warm { fill: var(--warm); } .chart .line-warm { stroke: var(--warm); }
.chart .fill-gray { fill: var(--gray); } .chart .line-gray { stroke: var(--gray); }
.chart .fill-pale { fill: var(--pale); } .chart .line-pale { stroke: var(--pale); }
"""

PALETTE_STYLE = """
:root, svg { --paper: #fdfdfb; --ink: #23262b; --quiet: #676c74; --line: #e3e3de; --main: #1f6f78;
  --warm: #b4552d; --gray: #6f7680; --pale: #a9afb5; }
@media screen and (prefers-color-scheme: dark) {
  :root, svg { --paper: #17191c; --ink: #e4e4e0; --quiet: #9a9fa6; --line: #30343a;
    --main: #58b5bd; --warm: #e0895f; --gray: #a0a6ae; --pale: #6a7078; } }
@media print { :root, svg { --paper: #fff; } }
"""
