"""The findings of a gradient check: a row for each tensor, and a table for people.

The table goes through the tensors as the backward pass does, from the loss to the input, and names the first that is
wrong: a mistake spoils all that comes after it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GradientRow:
    """What was found for one tensor."""

    name: str
    shape: tuple[int, ...]
    analytic: float  # <gradient, v> along the direction in which the two differ most
    numeric: float  # the measured slope along it
    error: float  # relative, see ``verdicts.py``; infinite where nothing could be compared
    verdict: str  # "ok", "wrong" or "not smooth"
    diagnosis: str = ""  # what the mistake looks like

    @property
    def ok(self) -> bool:
        """Whether the gradient agrees with the measured slopes."""
        return self.verdict == "ok"


@dataclass(frozen=True)
class GradientReport:
    """The findings for all tensors; ``str(report)`` is a table for people."""

    rows: tuple[GradientRow, ...]  # in the order of the forward pass, as the tensors were given
    whole: GradientRow  # all tensors moving at once
    tolerance: float
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every gradient is right; a tensor that could not be judged is not."""
        return all(row.ok for row in (*self.rows, self.whole))

    @property
    def worst(self) -> GradientRow:
        """The row with the largest relative error."""
        return max(self.rows or (self.whole,), key=lambda row: row.error)

    @property
    def first_wrong(self) -> GradientRow | None:
        """The wrong tensor nearest to the loss: a mistake spoils all that comes after it."""
        return next((row for row in (*reversed(self.rows), self.whole) if not row.ok), None)

    def __str__(self) -> str:
        lines = [("tensor", "shape", "analytic", "numeric", "error", "")]
        lines += [_cells(row) for row in (self.whole, *reversed(self.rows))]  # as the backward pass meets them
        width = [max(len(line[column]) for line in lines) for column in range(5)]
        table = [
            f"  {a:{width[0]}}  {b:{width[1]}}  {c:>{width[2]}}  {d:>{width[3]}}  {e:>{width[4]}}  {f}".rstrip()
            for a, b, c, d, e, f in lines
        ]
        return "\n".join([*table, "", self._summary(), *(f"Note: {note}" for note in self.notes)])

    def _summary(self) -> str:
        """Say in one or two sentences what the table shows."""
        if (first := self.first_wrong) is None:
            number = f"All {len(self.rows)} gradients, and all together," if self.rows else "All gradients together"
            return (
                f"{number} agree with finite differences; the largest relative error is {self.worst.error:.1e} "
                f"({self.worst.name}), the bound {self.tolerance:.0e}."
            )
        bad = sum(not row.ok for row in self.rows)
        return (
            f"{bad} of {len(self.rows)} gradients {'does' if bad == 1 else 'do'} not agree with finite differences.\n"
            f"The first on the way back from the loss is {first.name}: {first.diagnosis}"
        )


def _cells(row: GradientRow) -> tuple[str, str, str, str, str, str]:
    """Write one line of the table."""
    mark = "ok" if row.ok else f"<-- {row.verdict}: {row.diagnosis}"
    return row.name, str(row.shape), f"{row.analytic:.6e}", f"{row.numeric:.6e}", f"{row.error:.1e}", mark
