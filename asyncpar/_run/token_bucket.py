"""The law of `rate=`: how many calls may begin now, and when the next may. Pure: no clock, no I/O.

A bucket holds up to `burst` tokens, and gets `rate` of them a second. It is full at first. A call that begins takes one. So of
all the calls of a run,

    begun within any t seconds <= burst + rate * t

A batch is cut and packed some time before it can be sent: its worker may yet have to be started, or be busy. If its tokens were
taken when it is cut, the bucket would fill again meanwhile, and its calls would begin in a lump together with the next ones. So
they are *promised* to the batch when it is cut, and stay in the bucket, where they leave less room for new ones. They are
*spent* when it is sent.

What is kept is not a number of tokens but the time at which the bucket will be full (as in the "generic cell rate algorithm"
of ATM networks). So "when is there a token?" and "is there one now?" are one comparison of one number, and whoever waits until
then is not sent away by a rounding error.

# promised <= tokens in the bucket <= burst
"""

from __future__ import annotations

from math import inf


class TokenBucket:
    """Args:
    rate: tokens that come in a second.
    burst: how many it holds, 1 or more. The part of one that is not whole lets the next token come sooner after a pause.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._promised = 0
        self._full_at = -inf

    def due(self) -> float:
        """When there will be a token that is not promised; infinite, if not before some are spent."""
        room = self._burst - self._promised - 1
        return inf if room < 0 else self._full_at - room / self._rate

    def tokens(self, now: float) -> int:
        """How many can be promised."""
        if now < self.due():
            return 0
        missing = max(0.0, self._full_at - now) * self._rate
        return max(1, int(self._burst - self._promised - missing))

    def promise(self, tokens: int) -> None:
        self._promised += tokens

    def spend(self, tokens: int, now: float) -> None:
        """Tokens that were promised are taken out."""
        self._promised -= tokens
        self._full_at = max(self._full_at, now) + tokens / self._rate
