"""Makes table.md and the plots of docs/bench out of data.csv.

usage: report.py FOLDER LIBVIRT SIZE CPUS KERNEL LOAD
"""

import collections
import csv
import math
import pathlib
import re
import sys

TITLES = {
    "create": "Create a tap",
    "create-persistent": "Create a persistent tap",
    "create-queues": "Create a multi-queue tap (n queues)",
    "create-in-bridge": "Create in a bridge port (n ports there)",
    "delete": "Delete a tap",
    "delete-many": "Delete n taps",
    "delete-many-longest-stall": "Longest wait of another netlink user meanwhile, worst of all",
    "create-among": "Create a persistent tap, libvirt makes up the name (n interfaces)",
    "delete-among": "Delete a tap (n interfaces)",
    "get-persist-among": "GetPersist (n interfaces)",
    "save-among": "Save (n interfaces)",
    "stats": "Statistics of one tap (n interfaces)",
    "stats-all": "Statistics of all n interfaces",
    "save": "Save",
    "hold": "Hold",
    "restore": "Restore, nothing changed",
    "restore-many": "Restore n taps that were absent before",
    "load": "Load the library",
    "load-resident-kib": "Resident memory of loading it",
}
COLOURS = {"ours": "#0b6e4f", "libvirt": "#c0392b", "floor": "#7f8c8d"}
PLOTS = ["create-queues", "create-in-bridge", "stats", "stats-all", "delete-many", "delete-many-longest-stall"]


def show(value, unit):
    if value is None:
        return ""
    if unit == "KiB":
        return f"{value:,.0f} KiB"
    for limit, divisor, name in ((1e3, 1, "µs"), (1e6, 1e3, "ms"), (math.inf, 1e6, "s")):
        if value < limit:
            return f"{value / divisor:.3g} {name}"


def table(rows, libvirt, size, cpus, kernel, load):
    lines = [
        f"Medians; ours beside {libvirt}, called in turn in one private network namespace; Linux {kernel}, {cpus} CPUs, load",
        f"average {load} at the end. Above one for each CPU, other work moves the absolute figures a lot. The floor is what",
        "the kernel takes for the bare system calls: open and TUNSETIFF; RTM_DELLINK, which returns only when the kernel has",
        "waited for RCU; one group delete without regard for others; RTM_GETSTATS by index, or a dump of it. State records are",
        "on a tmpfs, as /run is. Where the ratio is small, it is the median of ratios of calls one after the other, each of the",
        "two first as often as the other; in brackets, between which values that lies with a probability of 97 %. If 1 is among",
        "them, neither can be said to be faster.",
        "",
        "| | n | ours | libvirt | floor | libvirt / ours |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for test, title in TITLES.items():
        for n in sorted(n for t, n in rows if t == test):
            by = rows[test, n]
            unit = "KiB" if test.endswith("kib") else "µs"
            ratio = f"{by['libvirt'] / by['ours']:.3g}" if "libvirt" in by else ""
            if "low" in by and by["low"] < 2:
                ratio = "the same" if by["low"] <= 1 <= by["high"] else f"{by['ratio']:.3g}"
                ratio += f" ({by['low']:.3g} to {by['high']:.3g})"
            cells = [show(by.get(who), unit) for who in ("ours", "libvirt", "floor")]
            lines.append(f"| {title} | {n} | {' | '.join(cells)} | {ratio} |")
    for test in ("save", "hold", "restore"):
        calls = system_calls(test.title())
        if (test, 1) in rows and calls:
            per_call = show(rows[test, 1]["ours"] / calls, "µs")
            lines.append(f"| {TITLES[test]}: each of {calls} system calls | 1 | {per_call} | | | |")
    lines += ["", f"The stripped shared library has {size / 1000:,.0f} kB.", ""]
    return "\n".join(lines)


def system_calls(function):
    """From the table in docs/performance.md."""
    with open(pathlib.Path(__file__).parent.parent / "docs/performance.md") as file:
        found = re.search(rf"`virNetDevTapState{function}` \| a free tap \| (\d+)", file.read())
    return found and int(found[1])


def plot(test, rows):
    """One log-log plot: time over n, a line for each library and the floor."""
    width, height, left, right, top, bottom = 640, 400, 70, 90, 40, 50
    lines = collections.defaultdict(list)
    for (t, n), by in sorted(rows.items()):
        if t == test:
            for who in COLOURS:
                if who in by:
                    lines[who].append((n, by[who]))
    points = [point for line in lines.values() for point in line]
    lowest, highest = (f(math.log10(p[0]) for p in points) for f in (min, max))
    bottom_log = math.floor(min(math.log10(p[1]) for p in points))
    top_log = math.ceil(max(math.log10(p[1]) for p in points))

    def x(n):
        return left + (math.log10(n) - lowest) / ((highest - lowest) or 1) * (width - left - right)

    def y(value):
        return height - bottom - (math.log10(value) - bottom_log) / ((top_log - bottom_log) or 1) * (height - top - bottom)

    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="22" font-size="15">{TITLES[test]}</text>',
    ]
    for power in range(bottom_log, top_log + 1):
        at = y(10**power)
        svg.append(f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        svg.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{show(10**power, "µs")}</text>')
    for n in sorted({p[0] for p in points}):
        svg.append(f'<line x1="{x(n):.1f}" x2="{x(n):.1f}" y1="{top}" y2="{height - bottom}" stroke="#eee"/>')
        svg.append(f'<text x="{x(n):.1f}" y="{height - bottom + 18}" text-anchor="middle">{n}</text>')
    svg.append(f'<text x="{(left + width - right) / 2}" y="{height - 10}" text-anchor="middle">n</text>')
    for who, line in lines.items():
        path = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in line)
        svg.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[who]}" stroke-width="2"/>')
        svg += [f'<circle cx="{x(n):.1f}" cy="{y(value):.1f}" r="3.5" fill="{COLOURS[who]}"/>' for n, value in line]
    ends = sorted((y(line[-1][1]), who) for who, line in lines.items())
    last = -math.inf
    for at, who in ends:
        last = max(at, last + 14)
        svg.append(f'<text x="{width - right + 10}" y="{last + 4:.1f}" fill="{COLOURS[who]}">{who}</text>')
    return "\n".join([*svg, "</svg>", ""])


def main():
    folder, libvirt, size, cpus, kernel, load = sys.argv[1:]
    rows = collections.defaultdict(dict)
    with open(f"{folder}/data.csv", newline="") as file:
        for row in csv.DictReader(file):
            rows[row["test"], int(row["n"])][row["who"]] = float(row["median_us"])
    with open(f"{folder}/table.md", "w") as file:
        file.write(table(rows, libvirt, int(size), cpus, kernel, load))
    for test in PLOTS:
        if len({n for t, n in rows if t == test}) > 1:
            with open(f"{folder}/{test}.svg", "w") as file:
                file.write(plot(test, rows))


main()
