"""Texts that are nearly the same, found among many without comparing each with each.

    text ──runs of five words──> hashes ──minimum under 64 permutations──> 64 numbers
    four of them equal, in any of 16 bands ──> a pair to look at ──share of equal numbers──> Jaccard

MinHash (Broder 1997) estimates the Jaccard similarity of the two sets of runs: the share of their
runs that both have. The standard error is sqrt(J (1 - J) / 64), 0.05 at 0.8; banding (Leskovec,
Rajaraman, Ullman, Mining of Massive Datasets, 3.4) misses one pair in 2,000 of that similarity.
A text costs 256 bytes, whatever its length.
"""

import re
import zlib
from array import array
from typing import NamedTuple

import numpy as np

__all__ = ["NearDuplicates", "Resemblance"]

_WORD = re.compile(r"\w+")
_RUN = 5
_BANDS, _ROWS = 16, 4
_CHUNK = 1 << 16


class Resemblance(NamedTuple):
    """A text that is nearly one before it."""

    place: int
    earlier: int
    similarity: float
    """Estimated share of the runs of five words of either that both have."""


class NearDuplicates:
    """Texts by their MinHash signatures."""

    def __init__(self, threshold: float) -> None:
        """Texts count as nearly the same from the similarity `threshold` on, between 0 and 1."""
        self.threshold = threshold
        self._places: array[int] = array("q")
        self._signatures: array[int] = array("I")
        source = np.random.default_rng(0)
        drawn = source.integers(0, 1 << 64, (2, _BANDS * _ROWS, 1), dtype=np.uint64)
        self._factors, self._shifts = drawn[0] | np.uint64(1), drawn[1]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._places)

    def add(self, text: str, place: int) -> None:
        """Remembers a text by where it stands; one without a word resembles nothing."""
        runs = _runs(text)
        if not len(runs):
            return
        # Multiplication modulo 2^64; its high bits are the mixed ones (Dietzfelbinger et al. 1997).
        hashed = (self._factors * runs + self._shifts) >> np.uint64(32)
        self._signatures.frombytes(hashed.min(1).astype(np.uint32).tobytes())
        self._places.append(place)

    def found(self, known: int = 0) -> list[Resemblance]:
        """Each text that is nearly one before it, with the most similar of those looked at.

        Args:
            known: where above 0, the first so many texts are what the others are compared with,
                and nothing else is.
        """
        signatures = np.frombuffer(self._signatures, np.uint32).reshape(-1, _BANDS * _ROWS)
        best: dict[int, tuple[float, int]] = {}
        for later, earlier in self._candidates(signatures, known):
            for start in range(0, len(later), _CHUNK):
                i, j = later[start : start + _CHUNK], earlier[start : start + _CHUNK]
                similarity = (signatures[i] == signatures[j]).mean(1)
                for row in np.flatnonzero(similarity >= self.threshold).tolist():
                    pair = (float(similarity[row]), -int(j[row]))
                    best[int(i[row])] = max(pair, best.get(int(i[row]), pair))
        return [
            Resemblance(self._places[i], self._places[-j], similarity)
            for i, (similarity, j) in sorted(best.items())
        ]

    def _candidates(
        self, signatures: np.ndarray, known: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of texts (later, earlier) that agree in a band: each with the first of those that
        do, and with the one before it.
        """
        found = []
        for band in range(_BANDS):
            part = np.ascontiguousarray(signatures[:, band * _ROWS : (band + 1) * _ROWS])
            keys = part.view(np.dtype((np.void, part.shape[1] * 4))).ravel()
            _, group = np.unique(keys, return_inverse=True)
            order = np.argsort(group, kind="stable")
            same = group[order][1:] == group[order][:-1]
            positions = np.arange(len(order))
            starts = np.where(np.concatenate(([True], ~same)), positions, 0)
            first = order[np.maximum.accumulate(starts)]
            for later, earlier in ((order[1:][same], order[:-1][same]), (order, first)):
                wanted = (later >= known) & (earlier < known) if known else later > earlier
                found.append((later[wanted], earlier[wanted]))
        return found


def _runs(text: str) -> np.ndarray:
    """Hashes of the different runs of five words; of a shorter text, the whole."""
    words = _WORD.findall(text.casefold())
    size = min(_RUN, len(words))
    if not size:
        return np.empty(0, np.uint64)
    runs = {" ".join(words[at : at + size]) for at in range(len(words) - size + 1)}
    return np.array([zlib.crc32(run.encode("utf-8", "replace")) for run in runs], np.uint64)
