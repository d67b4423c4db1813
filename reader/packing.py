"""How many conversations travel in one call, and which: the size follows the queue, the calls and the canary.

a backlog that flows: doubled     calls that fail, or slow down while the queue is deep: halved
a canary that disagrees: halved, and no larger than that until enough canaries agree again
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from reader.questions import Question

_BACKLOG_CLAIMS = 4  # so many full claims in a row mean a backlog: packs may grow
_SLOW_SAMPLE = 5  # calls of one size: the first so many say what is normal, the last so many how it is now
_SLOW_TIMES = 2.0
_CANARY_SAMPLE = 50
_LEAST_AGREEMENT = 0.98
_FEW_CANARIES = 5
_MOST_PACK_CHARS = 60_000  # about 15,000 tokens: far from any limit, and one text too large does not stop fifty


@dataclass(frozen=True, slots=True)
class PackLimits:
    smallest: int
    start: int
    largest: int


class PackSize:
    """How many conversations travel in one call, now."""

    def __init__(self, limits: PackLimits) -> None:
        self._limits = limits
        self._ceiling = limits.largest
        self._full_claims = 0
        self._normal_s: list[float] = []
        self._recent_s: deque[float] = deque(maxlen=_SLOW_SAMPLE)
        self._canaries: list[bool] = []
        self._judged = 0
        self.current = limits.start

    @property
    def is_unproven(self) -> bool:
        """Few canaries have been judged since the size was last changed."""
        return self._judged < _FEW_CANARIES

    def record_claim(self, *, full: bool) -> None:
        self._full_claims = self._full_claims + 1 if full else 0
        if self._full_claims >= _BACKLOG_CLAIMS:
            self._change(min(self._ceiling, self.current * 2))
            self._full_claims = 0

    def record_pressure(self) -> None:
        """A call failed or was cut off, or calls slow down while the queue is deep."""
        self._change(max(self._limits.smallest, self.current // 2))
        self._full_claims = 0

    def record_latency(self, seconds: float) -> bool:
        """Of a call of the present size; whether calls have slowed down to less than half their speed."""
        if len(self._normal_s) < _SLOW_SAMPLE:
            self._normal_s.append(seconds)
            return False
        self._recent_s.append(seconds)
        return len(self._recent_s) == _SLOW_SAMPLE and fmean(self._recent_s) > _SLOW_TIMES * fmean(self._normal_s)

    def record_canary(self, *, agreed: bool) -> None:
        """As soon as fewer than 98 % of 50 can agree, the packs are too large to be trusted."""
        self._canaries.append(agreed)
        self._judged += 1
        if self._canaries.count(False) > _CANARY_SAMPLE * (1 - _LEAST_AGREEMENT):
            self._change(max(self._limits.smallest, min(2, self.current), self.current // 2))
            self._ceiling = self.current  # 2 at least: what is always read alone could never be trusted again
            self._canaries.clear()
        elif len(self._canaries) == _CANARY_SAMPLE:
            self._ceiling = min(self._limits.largest, self._ceiling * 2)
            self._canaries.clear()

    def _change(self, size: int) -> None:
        if size != self.current:  # a call of another size takes another time
            self.current = size
            self._judged = 0
            self._normal_s.clear()
            self._recent_s.clear()


def make_packs(questions: Sequence[Question], *, size: int) -> list[list[Question]]:
    """Packs of at most `size` questions and 60,000 characters; what may spoil a pack travels alone."""
    packs: list[list[Question]] = []
    pack: list[Question] = []
    chars = 0
    for question in questions:
        if question.alone:
            packs.append([question])
            continue
        if pack and (len(pack) == size or chars + len(question.text) > _MOST_PACK_CHARS):
            packs.append(pack)
            pack, chars = [], 0
        pack.append(question)
        chars += len(question.text)
    return [*packs, pack] if pack else packs
