"""The token with which the console asks the Dagster UI, when that asks for a login.

It is signed with the key of the sessions, which both have, and ends after a minute: nothing is stored or configured.
"""

from __future__ import annotations

from itsdangerous import BadSignature, URLSafeTimedSerializer

NAME = "console"
SECONDS = 60


class OwnTokens:
    """Makes and reads the console's own tokens."""

    def __init__(self, key: str) -> None:
        self._signer = URLSafeTimedSerializer(key, salt="console to dagster")

    def make(self) -> str:
        """Return a token that is good for a minute."""
        token: str = self._signer.dumps(NAME)
        return token

    def is_own(self, token: str) -> bool:
        """Was *token* made with our key within the last minute?"""
        try:
            return bool(self._signer.loads(token, max_age=SECONDS) == NAME)
        except (BadSignature, ValueError):
            return False
