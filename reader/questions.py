"""One text to put to Grok, and every claim that waits for its answer."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime

from prefilter import Keep, Skip
from reader.injection import looks_like_instructions
from schemas import Analysis, Sentiment, Tally
from store import Claim, Completed, Outcome

_SUSPECTED_CONFIDENCE = 0.5  # whoever tries to steer the model may have succeeded
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")


@dataclass(slots=True)
class Question:
    """The first claim asked; the others have an equal text and share its answer.

    `alone`: it may spoil a pack, for it looks like instructions, spoiled an answer before, or an owner died with it.
    `audits`: by conversation, what the prefilter would have done with it, had it not been taken for the audit.
    """

    key: bytes
    text: str
    claims: list[Claim]
    suspected: bool
    alone: bool
    audits: dict[str, Skip | Keep] = field(default_factory=dict[str, Skip | Keep])

    def may_be_answered_as_of(self, said_at: datetime) -> bool:
        """What was said before somebody asked for it to be read again is no answer."""
        return all(claim.reread_at is None or claim.reread_at <= said_at for claim in self.claims)

    @classmethod
    def of(cls, claim: Claim, *, fingerprint: str, audit_of: Skip | Keep | None = None) -> "Question":
        suspected = looks_like_instructions(claim.text)
        alone = suspected or claim.attempts > 0 or claim.rescues > 0
        # a suspected text shares nothing with one that only looks the same: what it hides may have steered its answer
        key = cache_key(claim.text, f"{fingerprint}\nsuspected" if suspected else fingerprint)
        question = cls(key, claim.text, [claim], suspected, alone)
        if audit_of is not None:
            question.audits[claim.conversation_id] = audit_of
        return question

    def join(self, other: "Question") -> None:
        """The claims of an equal text wait for the same answer."""
        self.alone = self.alone or other.alone
        self.claims += other.claims
        self.audits |= other.audits

    def answered(self, analysis: Analysis, *, model: str, asked: bool, keep: bool = False) -> list[Outcome]:
        """An outcome for each claim. `asked`: the model has just said so of the first; else it had said so before.

        `keep`: what it has just said is to serve equal texts.
        """
        if self.suspected:
            confidence = min(analysis.confidence, _SUSPECTED_CONFIDENCE)
            analysis = analysis.model_copy(update={"confidence": confidence, "injection_suspected": True})
        outcomes: list[Outcome] = []
        for number, claim in enumerate(self.claims):
            own = asked and number == 0
            tallies = (Tally.ASKED if own else Tally.CACHED, *self._audit(claim, analysis))
            if self.suspected:
                tallies += (Tally.SUSPECTED,)
            tallies += (Tally.UNLISTED,) * len(analysis.unlisted_topics)
            outcomes.append(
                Completed(claim, analysis, model, cache_key=self.key if own and keep else None, tallies=tallies)
            )
        return outcomes

    def _audit(self, claim: Claim, analysis: Analysis) -> tuple[Tally, ...]:
        """What the prefilter would have lost, had this row not been taken for its audit."""
        match self.audits.get(claim.conversation_id):
            case None:
                return ()
            case Skip():
                lost = analysis.sentiment is Sentiment.NEGATIVE
                return (Tally.SKIP_AUDITED, Tally.SKIP_LOST) if lost else (Tally.SKIP_AUDITED,)
            case Keep(analysis=kept):
                differs = kept.sentiment is not analysis.sentiment
                return (Tally.KEEP_AUDITED, Tally.KEEP_DIFFERED) if differs else (Tally.KEEP_AUDITED,)


def cache_key(text: str, fingerprint: str) -> bytes:
    """SHA-256 over the text, but for how it is spaced and encoded, and over all else that the answer depends on."""
    visible = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    return hashlib.sha256(f"{fingerprint}\n{' '.join(visible.split())}".encode()).digest()
