"""The one error a user can cause or fix: what happened, why, and what to do next."""


class PlatformError(Exception):
    """A failure that is the user's to fix; printed as a few lines, never as a traceback.

    Args:
        what: what happened, one sentence without a full stop.
        why: the cause as far as it is known: the tool's own words, a list of wrong values, log lines.
        todo: what to do next, a command where there is one.
        file: the author's file it is about, relative to the workflow's folder, if it is about one.
        line: the line in it, from 1.
    """

    def __init__(self, what: str, why: str = "", todo: str = "", *, file: str = "", line: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.why = why.strip()
        self.todo = todo.strip()
        self.file = file
        self.line = line

    def __str__(self) -> str:
        """All three parts, for logs and for tests."""
        return "\n".join(part for part in (self.what, self.why, self.todo) if part)
