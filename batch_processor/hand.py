"""What this process has claimed and not yet seen to its end."""

from collections.abc import Iterable

from store import Claim


class Hand:
    """Claims by conversation; a row whose lease was lost leaves it like any other, when its outcome is told."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def __len__(self) -> int:
        return len(self._claims)

    @property
    def claims(self) -> list[Claim]:
        return list(self._claims.values())

    @property
    def most_rescues(self) -> int | None:
        """Of any claim in it; None when it is empty."""
        return max((claim.rescues for claim in self._claims.values()), default=None)

    def take(self, claims: Iterable[Claim]) -> None:
        self._claims.update({claim.conversation_id: claim for claim in claims})

    def drop(self, claims: Iterable[Claim]) -> None:
        """A row that was claimed anew meanwhile stays: it is another claim."""
        for claim in claims:
            held = self._claims.get(claim.conversation_id)
            if held is not None and held.fence == claim.fence:
                del self._claims[claim.conversation_id]

    def empty(self) -> list[Claim]:
        """What was in it."""
        claims, self._claims = self.claims, {}
        return claims
