"""The session of a guide for a batch."""

import copy

from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.gated import GatedSession
from rewardsteer.decoding.guides.session import (
    AskingSession,
    CandidateSession,
    GuideSession,
    VocabularySession,
)

_SESSIONS: dict[str, type[AskingSession]] = {
    "next_tokens": VocabularySession, "candidates": CandidateSession,
}


def open_session(guide: LogitsGuide) -> GuideSession:
    """A fresh session for a new batch."""
    if guide.asks == "nothing":
        return GuideSession(guide)
    if not guide.gated:
        return _asking(guide)
    scout = None if guide.scout is None else copy.copy(guide.scout)
    if scout is None:
        return GatedSession(guide, _asking(guide))
    scout.weight = guide.weight
    return GatedSession(guide, _asking(guide), _asking(scout))


def _asking(guide: LogitsGuide) -> AskingSession:
    own = getattr(guide.scorer, "open_session", None)
    session: AskingSession = _SESSIONS[guide.asks](guide) if own is None else own(guide)
    return session
