"""A picture of steps over a logarithmic scale, as SVG: no library is needed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Curve", "draw"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 360, 60, 20, 140, 50
_COLOURS = ("#0b6e4f", "#b0413e", "#30638e")


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (bytes, how many), ascending."""

    name: str
    points: list[tuple[int, int]]


def draw(curves: list[Curve], most: int, across: str, up: str) -> str:
    """The picture."""
    first = min(point[0] for curve in curves for point in curve.points)
    last = max(point[0] for curve in curves for point in curve.points)

    def x(size: float) -> float:
        share = math.log(size / first) / math.log(last / first) if last > first else 0.0
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(count: float) -> float:
        return _HEIGHT - _BOTTOM - count / most * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for count in range(most + 1):
        parts.append(f'<path d="M{_LEFT} {y(count):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(count) + 4:.1f}" text-anchor="end">{count}</text>')
    size = 1 << math.ceil(math.log2(first))
    while size <= last:
        label = f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
        parts.append(f'<path d="M{x(size):.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#eee"/>')
        parts.append(f'<text x="{x(size):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{label}</text>')
        size *= 4
    for curve, colour in zip(curves, _COLOURS, strict=False):
        steps = [f"M{x(curve.points[0][0]):.1f} {y(curve.points[0][1]):.1f}"]
        for position, count in curve.points[1:]:
            steps.append(f"H{x(position):.1f}V{y(count):.1f}")
        parts.append(f'<path d="{"".join(steps)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>' for a, b in curve.points]
        end = curve.points[-1]
        parts.append(f'<text x="{x(end[0]) + 8:.1f}" y="{y(end[1]) + 4:.1f}" fill="{colour}">{curve.name}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 12}">{across}</text>')
    parts.append(f'<text x="16" y="{_HEIGHT - _BOTTOM}" transform="rotate(-90 16 {_HEIGHT - _BOTTOM})">{up}</text>')
    return "\n".join([*parts, "</svg>", ""])
