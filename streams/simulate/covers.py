"""Covers: a picture for any item, drawn from its title and categories. Pure text in, SVG out; no fonts, no network."""

from hashlib import blake2b
from html import escape
from math import cos, pi, sin

WIDTH, HEIGHT = 240, 360
LINE_CHARS = 15
MOTIFS = ("suns", "hills", "waves", "stripes", "tiles", "rings")


def cover_svg(title: str, categories: tuple[str, ...] = ()) -> str:
    """An SVG of 240 x 360 units. The first category gives the colours, the title the drawing; the same every time."""
    dice = blake2b(title.encode(), digest_size=16).digest()
    hue = (
        int.from_bytes(blake2b((categories[0] if categories else title).encode(), digest_size=2).digest(), "big") % 360
    )
    paper, ink, bright = f"hsl({hue} 32% 90%)", f"hsl({hue} 45% 22%)", f"hsl({(hue + 20 + dice[0] % 60) % 360} 62% 52%)"
    lines = _wrapped(title)
    # four and five lines are set smaller, so that they stay within the frame
    size, top = (22, 62 - 11 * max(0, len(lines) - 2)) if len(lines) < 4 else (19, 46 - 8 * (len(lines) - 4))
    text = "".join(f'<tspan x="120" y="{top + (size + 3) * n}">{escape(line)}</tspan>' for n, line in enumerate(lines))
    label = escape(" · ".join(categories[:2]).upper())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{paper}"/>'
        f'<g fill="{bright}" color="{bright}" stroke="{ink}" stroke-width="2">{_motif(dice)}</g>'
        f'<rect x="8" y="8" width="224" height="344" fill="none" stroke="{ink}" stroke-width="2"/>'
        f'<g font-family="Georgia, serif" text-anchor="middle" fill="{ink}">'
        f'<text font-size="{size}" font-weight="bold">{text}</text>'
        f'<text x="120" y="338" font-size="10" letter-spacing="1.5">{label}</text></g></svg>'
    )


def _wrapped(title: str) -> list[str]:
    """At most five lines; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LINE_CHARS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    lines = [line if len(line) <= LINE_CHARS + 3 else line[: LINE_CHARS + 2] + "…" for line in lines]
    return lines if len(lines) <= 5 else [*lines[:4], lines[4].rstrip("…") + "…"]


def _motif(dice: bytes) -> str:
    """A drawing below the title, in the square from (30, 140) to (210, 320)."""
    motif, n = MOTIFS[dice[1] % len(MOTIFS)], 3 + dice[2] % 4
    if motif == "suns":
        rays = "".join(_ray(2 * pi * r / (3 * n)) for r in range(3 * n))
        return f'{rays}<circle cx="120" cy="232" r="{34 + dice[3] % 20}"/>'
    return "".join(_stroke(motif, k, n, dice) for k in range(16 if motif == "tiles" else n))


def _ray(angle: float) -> str:
    return f'<line x1="120" y1="232" x2="{120 + 84 * cos(angle):.1f}" y2="{232 + 84 * sin(angle):.1f}"/>'


def _stroke(motif: str, k: int, n: int, dice: bytes) -> str:
    """The k-th of n parts of a drawing."""
    throw = dice[(4 + k) % len(dice)]
    if motif == "hills":
        x = 72 + 96 * k / (n - 1)
        return f'<path d="M{x - 54:.0f} 315 L{x:.0f} {170 + throw % 90} L{x + 54:.0f} 315 Z" fill-opacity=".75"/>'
    if motif == "waves":
        bend = f"M24 {170 + 24 * k} q24 {-(8 + throw % 24)} 48 0 t48 0 t48 0 t48 0"
        return f'<path d="{bend}" fill="none" stroke="currentColor" stroke-width="{3 + k}"/>'
    if motif == "stripes":
        x, y, height = 34 + 172 * k // n, 150 + throw % 60, 70 + dice[3] % 36
        return f'<rect x="{x}" y="{y}" width="{120 // n}" height="{height}"/>'
    if motif == "tiles":
        x, y, opacity = 54 + 34 * (k % 4), 160 + 34 * (k // 4), 0.15 + throw / 300
        return f'<rect x="{x}" y="{y}" width="30" height="30" fill-opacity="{opacity:.2f}"/>'
    x, y, radius = 100 + dice[3] % 40, 220 + dice[4] % 24, 84 - 80 * k // n
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill-opacity=".25"/>'
