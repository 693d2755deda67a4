"""What one more session is worth, in numpy: the arithmetic that the sampler's Arrow functions run.

The objective is F(A) = sum_v w_v f(c_v), f(c) = 1 - exp(-c), with c_v the evidence that the kept sessions
give of pattern v: feature-based submodular maximisation. The gain of session s on top of what is kept is

    sum_{v in s} w_v (f(c_v + a_sv) - f(c_v)) = sum_{v in s} w_v exp(-c_v) (1 - exp(-a_sv))

a product of what the pattern has still to offer (`offer`, by pattern) and a function of the message, which
is an integer: a table. Contributions are rounded to integers in units of 1/`GAIN_UNIT`, so that their sum
does not depend on their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FULL", "GAIN_UNIT", "Objective", "contributions", "sum_by_row"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# A session's gain is at most the sum of the families' weights, 2: 2 x 2^52 fits a BIGINT, and 2^-52 is
# below the smallest gain that matters (weights are about 1/patterns).
GAIN_UNIT = float(2**52)

# Evidence beyond 40 leaves exp(-40) = 4e-18 of a weight, below the gain's unit.
FULL = 40

SEEN, NEW, COLD = np.uint8(0), np.uint8(1), np.uint8(2)


@dataclass
class Objective:
    """The state of the reverse messages: evidence kept by pattern, and what each has still to offer.

    Attributes:
        weight: by pattern, shape (V,).
        cold: whether the pattern teaches a cold item, shape (V,).
        unit: messages are integers in units of 1/unit.
        cap: None for f(c) = 1 - exp(-c). Else, by pattern, the number of sessions wanted: the gain is
            the weight for each session below the cap and nothing above (the floors' objective).
        evidence: kept messages by pattern, BIGINT sums, shape (V,).
    """

    weight: Floats
    cold: npt.NDArray[np.bool_]
    unit: int
    cap: Ints | None
    evidence: Ints

    @classmethod
    def empty(
        cls,
        weight: Floats,
        cold: npt.NDArray[np.bool_],
        unit: int,
        cap: Ints | None = None,
    ) -> Objective:
        """An objective with nothing kept yet."""
        return cls(weight, cold, unit, cap, np.zeros(weight.size, dtype=np.int64))

    def add(self, pattern: Ints, message: Ints) -> None:
        """Add kept messages; each pattern at most once in the call."""
        self.evidence[pattern] += message

    def offer(self) -> Floats:
        """What each pattern has still to offer, in units of 1/GAIN_UNIT, shape (V,)."""
        if self.cap is not None:
            left: Floats = np.where(self.evidence < self.cap, 1.0, 0.0)
        else:
            left = self.survival()[np.minimum(self.evidence, FULL * self.unit)]
        offered: Floats = self.weight * left * GAIN_UNIT
        return offered

    def offer_at(self, pattern: npt.NDArray[np.int32], evidence: Ints) -> Floats:
        """What patterns had to offer at other evidence than this state's, shape of `pattern`; no caps."""
        left = self.survival()[np.minimum(evidence, FULL * self.unit)]
        offered: Floats = self.weight[pattern] * left * GAIN_UNIT
        return offered

    def survival(self) -> Floats:
        """exp(-c) for c = 0..FULL in units of 1/unit: a table, so that every sampler reads one value."""
        table: Floats = np.exp(np.arange(FULL * self.unit + 1) / -self.unit)
        return table

    def kind(self) -> npt.NDArray[np.uint8]:
        """0 where the pattern is already kept somewhere, 1 where it is new, 2 where new and cold."""
        fresh = self.evidence == 0
        return np.where(fresh, np.where(self.cold, COLD, NEW), SEEN)

    def saturation(self, largest: int) -> Floats:
        """1 - exp(-a) for a = 0..largest in units of 1/unit; 1 for every a under caps."""
        if self.cap is not None:
            return np.ones(largest + 1)
        table: Floats = -np.expm1(np.arange(largest + 1) / -self.unit)
        return table

    def share(self, of: Ints) -> float:
        """F of what is kept as a share of F of other evidence by pattern; 1 where that is 0."""
        whole = Objective(self.weight, self.cold, self.unit, self.cap, of).value()
        return self.value() / whole if whole > 0 else 1.0

    def value(self) -> float:
        """F of what is kept, in [0, sum of weights]."""
        if self.cap is not None:
            return float((self.weight * np.minimum(self.evidence, self.cap)).sum())
        return float((self.weight * -np.expm1(self.evidence / -self.unit)).sum())


def contributions(
    offer: Floats,
    saturation: Floats,
    pattern: npt.NDArray[np.int32],
    message: npt.NDArray[np.int32],
) -> Ints:
    """Gain of each edge in units of 1/GAIN_UNIT, shape (E,).

    Messages beyond the table (evidence of over `FULL`) are as good as infinite.
    """
    capped = np.minimum(message, saturation.size - 1)
    gains: Ints = np.rint(offer[pattern] * saturation[capped]).astype(np.int64)
    return gains


def sum_by_row(values: Ints, lengths: Ints) -> Ints:
    """Exact integer sums over the edges of each row of a CSR block; 0 for a row without edges.

    >>> sum_by_row(np.array([1, 2, 3]), np.array([2, 0, 1])).tolist()
    [3, 0, 3]
    """
    # The running total may wrap around; the difference of two is right all the same, modulo 2^64.
    total = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(values, dtype=np.int64)])
    ends = np.cumsum(lengths)
    sums: Ints = total[ends] - total[ends - lengths]
    return sums
