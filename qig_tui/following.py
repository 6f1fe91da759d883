"""One command, followed from the asking to an end that is known. No Textual, no disk of its own."""

from typing import Any, Literal

from qig_core.rundir.layout import RunDir
from qig_core.rundir.schema import Event
from qig_tui.actions import Asked, ask, went_back_as
from qig_tui.picture import RunPicture
from qig_tui.text import duration, safe

UNSEEN_S = 30.0
"""A living trainer sees a command within a second or two; one that is not seen after this is taken back."""
STILL_S = 120.0
"""Without a further stage for so long, nobody waits any more: as long as a trainer may let a command lie."""

Outcome = Literal["waiting", "confirmed", "refused", "unconfirmed"]


class Followed:
    """A command that was sent, what became of it, and the words for that.

    An abort is followed for as long as somebody looks: it is never late, and any end of the run is what was asked for.

    Args:
        going_back: how the run is to say itself that it went back ("restore", "soft_reset"); an answer alone is then
            no proof.

    Raises:
        Refused: no trainer to ask, or an unsafe mailbox; the message is a sentence.
    """

    def __init__(
        self,
        picture: RunPicture,
        run: RunDir,
        verb: str,
        args: dict[str, Any] | None = None,
        *,
        going_back: str | None = None,
    ) -> None:
        self._picture = picture
        self._going_back = going_back
        self.asked: Asked = ask(run, verb, args)
        self.outcome: Outcome = "waiting"
        self.words = ""
        """Why it was not done, or not known to be; a sentence."""
        self.proof: Event | None = None
        """What the run recorded of its going back."""

    @property
    def verb(self) -> str:
        return self.asked.command.verb

    @property
    def unproven(self) -> bool:
        """Whether the trainer says that it is done, and the run's own record of it is still awaited."""
        return self.outcome == "waiting" and self.asked.ended

    def look(self) -> None:
        """See how far it has come, and whether there is still something to wait for."""
        if self.outcome != "waiting":
            return
        asked = self.asked
        asked.look()
        if asked.refused is not None:
            self._end("refused", f"The trainer refused: {asked.refused}")
        elif asked.ended and self._is_proven():
            self.outcome = "confirmed"
        elif self._run_is_over():
            if self.verb == "abort":
                self.outcome = "confirmed"
                return
            asked.withdraw()
            self._end("unconfirmed", f"The run ended before this was confirmed: {self._ending()}.")
        elif self.verb != "abort":
            self._give_up_in_time()

    def withdraw(self) -> bool:
        """Take it back; False where the trainer has seen it, or it has ended."""
        if not self.asked.unseen or self.outcome != "waiting" or not self.asked.withdraw():
            return False
        self._end("unconfirmed", "Taken back: the trainer had not seen it, and nothing was changed.")
        return True

    def _is_proven(self) -> bool:
        if self._going_back is None:
            return True
        self.proof = went_back_as(list(self._picture.journal.restored), self.asked, self._going_back)
        return self.proof is not None

    def _run_is_over(self) -> bool:
        """Whether the session that was asked is gone; a picture that has not heard of it yet says nothing."""
        session = self.asked.command.session
        known = [s.id for s in self._picture.manifest.sessions]
        return session in known and (self._picture.ended or known[-1] != session)

    def _ending(self) -> str:
        return safe(self._picture.liveness.text, 80) if self._picture.ended else "another process goes on with it"

    def _give_up_in_time(self) -> None:
        asked = self.asked
        if asked.unseen and asked.elapsed_s >= UNSEEN_S:
            if asked.withdraw():
                waited = duration(UNSEEN_S)
                self._end("unconfirmed", f"Not seen within {waited}: taken back, and nothing was changed.")
                return
        if asked.still_s < STILL_S:
            return
        waited = duration(STILL_S)
        if asked.ended:
            self._end("unconfirmed", f"The trainer says done; the run has not recorded the same within {waited}.")
        else:
            self._end("unconfirmed", f"Not confirmed: no further stage within {waited}. It may still be done.")

    def _end(self, outcome: Outcome, words: str) -> None:
        self.outcome, self.words = outcome, words
