"""Latencies as percentiles: a table, JSON and a chart."""

import json
import math

from hdrh.histogram import HdrHistogram

from paced import SETTINGS
from report import COLOURS

QUANTILES = (50, 90, 99, 99.9)
DASHES = ("", "6 3", "2 3")
SHADES = {"flink": COLOURS["flink"], "flink-1s": "#a03a50", "flink-200ms": "#f29bab",
          "flink-at-least-once": "#c98a1b", "drivetrain": COLOURS["drivetrain"]}


def percentiles(trial):
    """{50: ms, …, 100: ms} of an HdrHistogram with three digits, from 1 µs to 10 minutes."""
    histogram = HdrHistogram(1, 600_000_000, 3)
    for _, took in trial.latencies:
        histogram.record_value(max(1, round(took * 1e6)))
    found = {q: histogram.get_value_at_percentile(q) / 1000 for q in QUANTILES}
    return found | {100: histogram.get_max_value() / 1000}


def row(trial, share):
    """What the table and the JSON say of a run."""
    of = percentiles(trial) if trial.latencies else {}
    return {
        "setting": trial.setting, "share": share, "rate": trial.rate, "sent_per_s": trial.sent, "ms": of,
        "probes": len(trial.latencies), "missing": trial.missing, "growth": trial.growth if trial.latencies else None,
        "cores": trial.cores, "peak_bytes": trial.peak, "late_us": trial.late,
    }


def ms(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def table(rows):
    head = ["", "of its rate", "readings/s", "p50, ms", "p90", "p99", "p99.9", "max", "probes", "lag grows by, ms/s",
            "cores: job", "broker", "load", "others", "peak MB"]
    lines = []
    for r in rows:
        c = r["cores"]
        probes = f"{r['probes']:,}" + (f" ({r['missing']:,} unanswered)" if r["missing"] else "")
        found = [ms(value) for value in r["ms"].values()] or ["none"] * (len(QUANTILES) + 1)
        growth = "none" if r["growth"] is None else f"{1000 * r['growth']:.1f}"
        lines.append([SETTINGS[r["setting"]].name, f"{r['share']:.0%}", f"{r['rate']:,.0f}", *found, probes, growth, 
                      *(f"{c[who]:.2f}" for who in ("job", "broker", "load", "others")), f"{r['peak_bytes'] / 1e6:.0f}"])
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, lines)])


def write(directory, setting, found, rows):
    """`found`: {system: its sustainable rate and the trials that found it}."""
    directory.mkdir(parents=True, exist_ok=True)
    document = {"setting": setting, "sustainable": found, "runs": rows}
    (directory / "latency.json").write_text(json.dumps(document, indent=1) + "\n")
    answered = [r for r in rows if r["ms"]]
    if answered:
        (directory / "latency.svg").write_text(chart(setting["what"], answered))


def chart(what, rows):
    """A line a run: milliseconds (logarithmic) by percentile; the colour is the setting, the dashes are the share."""
    width, left, right, top, bottom, height = 860, 70, 560, 70, 420, 460
    lowest = math.floor(math.log10(min(min(r["ms"].values()) for r in rows)))
    highest = math.ceil(math.log10(max(max(r["ms"].values()) for r in rows)))
    marks = [*QUANTILES, 100]
    x = lambda q: left + marks.index(float(q)) / (len(marks) - 1) * (right - left)
    y = lambda value: bottom - (math.log10(value) - lowest) / (highest - lowest) * (bottom - top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="16" y="26" font-size="16">From the instant due to the score readable (read committed), ms</text>',
        f'<text x="16" y="46" fill="#666" font-size="12">{what}</text>',
    ]
    for power in range(lowest, highest + 1):
        at = y(10**power)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{10**power:,g}</text>')
    for q in marks:
        parts.append(f'<text x="{x(q):.1f}" y="{bottom + 20}" text-anchor="middle">{f"p{q:g}" if q < 100 else "max"}</text>')
    shares = sorted({r["share"] for r in rows})
    for number, r in enumerate(rows):
        colour, dash = SHADES[r["setting"]], DASHES[shares.index(r["share"]) % len(DASHES)]
        style = f'fill="none" stroke="{colour}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")
        points = " ".join(f"{x(q):.1f},{y(value):.1f}" for q, value in r["ms"].items())
        at = top + 18 * number
        parts += [f'<polyline points="{points}" {style}/>', f'<polyline points="{right + 16},{at} {right + 46},{at}" {style}/>',
                  f'<text x="{right + 52}" y="{at + 4}" font-size="12">{SETTINGS[r["setting"]].name}, {r["share"]:.0%}</text>']
    return "\n".join([*parts, "</svg>", ""])
