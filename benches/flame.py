"""Where a running job's CPU time goes, as a flame graph.

    python benches/flame.py PID OUT.svg [--seconds 4] [--title TEXT]

Needs Linux's perf and the right to use it; the program's release build has the symbols. Samples all threads of the process
(997 a second of CPU time, with their stacks), and draws them from the thread's name upwards: a box is as wide as the share of
samples that had this function on their stack; what stands above it was called by it. Boxes of less than 0.1 % are left out.
Prints the functions by their own share.
"""

import argparse
import collections
import html
import re
import subprocess
import tempfile

WIDTH, ROW, LEFT = 1600, 15, 8
LEAST = 0.001
# Of a name, what stands there for the compiler only.
NOISE = [(re.compile(r"::h[0-9a-f]{16}$"), ""), (re.compile(r"\+0x[0-9a-f]+$"), ""), (re.compile(r"\.(llvm|isra|constprop|part)\.?\d*"), "")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pid")
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--title", default="CPU time by thread and function")
    return parser.parse_args()


def name(symbol):
    for pattern, instead in NOISE:
        symbol = pattern.sub(instead, symbol)
    # Type arguments, from the innermost outwards.
    while (shorter := re.sub(r"<[^<>]*>", "", symbol)) != symbol and shorter.strip(":"):
        symbol = shorter
    return "::".join(part for part in symbol.split("::") if part)[-70:]


def stacks(pid, seconds):
    """Root first, each with its count."""
    found = collections.Counter()
    with tempfile.NamedTemporaryFile(suffix=".perf") as data:
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "--call-graph", "dwarf,16384", "-p", pid, "-o", data.name]
        subprocess.run([*record, "--", "sleep", str(seconds)], check=True)
        script = ["perf", "script", "-i", data.name, "--no-inline", "-F", "comm,ip,sym"]
        said = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    for sample in said.split("\n\n"):
        lines = sample.strip().splitlines()
        if lines:
            frames = [name(line.strip().split(" ", 1)[-1]) for line in lines[1:]]
            found[lines[0].strip(), *(frame for frame in reversed(frames) if frame != "[unknown]")] += 1
    return found


def boxes(found):
    """(depth, from, to, name) in shares of all samples; the same beside each other are one."""
    total, out, at = sum(found.values()), [], 0
    open_boxes = []
    for stack, count in [*sorted(found.items()), ((), 0)]:
        same = 0
        while same < min(len(open_boxes), len(stack)) and open_boxes[same][0] == stack[same]:
            same += 1
        for depth in reversed(range(same, len(open_boxes))):
            frame, begin = open_boxes.pop()
            out.append((depth, begin / total, at / total, frame))
        open_boxes.extend((frame, at) for frame in stack[same:])
        at += count
    return [box for box in out if box[2] - box[1] >= LEAST]


def color(frame):
    red, green, blue = (210, 120, 60) if "drivetrain" in frame else (215, 205, 150)
    shade = sum(map(ord, frame)) % 40
    return f"rgb({red + shade},{green + shade},{blue + shade})"


def draw(all_boxes, title):
    height = (max(depth for depth, *_ in all_boxes) + 3) * ROW
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" font-size="10">',
             f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="{ROW}">{html.escape(title)}</text>']
    scale = WIDTH - 2 * LEFT
    for depth, begin, end, frame in all_boxes:
        x, y, width = LEFT + begin * scale, height - (depth + 1) * ROW, (end - begin) * scale
        text = html.escape(frame[:max(0, int(width / 6.1))]) if width > 20 else ""
        lines.append(f'<g><title>{html.escape(frame)} {end - begin:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
                     f'height="{ROW - 1}" fill="{color(frame)}"/><text x="{x + 2:.1f}" y="{y + 11}">{text}</text></g>')
    return "\n".join([*lines, "</svg>", ""])


def main():
    args = arguments()
    found = stacks(args.pid, args.seconds)
    total, own, threads = sum(found.values()), collections.Counter(), collections.Counter()
    for stack, count in found.items():
        own[stack[-1]] += count
        threads[stack[0]] += count
    with open(args.out, "w") as out:
        out.write(draw(boxes(found), f"{args.title}; {total} samples"))
    for what, counts, most in (("thread", threads, 12), ("function", own, 25)):
        print(f"| {what} | share |\n|---|---|")
        print("\n".join(f"| {key} | {count / total:.1%} |" for key, count in counts.most_common(most)) + "\n")


if __name__ == "__main__":
    main()
