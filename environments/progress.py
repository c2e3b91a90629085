"""Steps of a task: side by side, each as soon as what it needs is there, and what each is doing meanwhile."""

import contextlib
import contextvars
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from environments.console import say, spoken_aside

_current: contextvars.ContextVar["tuple[Step, Display] | None"] = contextvars.ContextVar("current", default=None)
_interruptions: list[Callable[[], None]] = []


@dataclasses.dataclass(eq=False)
class Step:
    """One part of a task: its name, what it waits for and is doing, its outcome, and how long it took in seconds."""

    name: str
    needs: "tuple[Step, ...]" = ()
    done: threading.Event = dataclasses.field(default_factory=threading.Event)
    begin: float | None = None
    doing: str = ""
    result: Any = None
    error: BaseException | None = None
    skipped: bool = False
    seconds: float = 0.0
    note: str = ""

    @property
    def state(self) -> str:
        """One of waiting, working, done, failed, skipped."""
        if self.done.is_set():
            return "skipped" if self.skipped else "failed" if self.error else "done"
        return "waiting" if self.begin is None else "working"


class Display:
    """Is told, from the threads of the steps, what happens to them; prints nothing."""

    def begun(self, step: Step) -> None:
        """A step has begun."""

    def moved(self, step: Step) -> None:
        """What a step is doing is another thing now."""

    def ended(self, step: Step) -> None:
        """A step is over; one that was skipped is not told of."""


def doing(text: str) -> None:
    """Say what the current step is doing, so that long work is seen to move."""
    if current := _current.get():
        step, display = current
        step.doing = text
        display.moved(step)


def note(text: str) -> None:
    """Say in a few words how the current step ended; stands behind its name when it is over."""
    if current := _current.get():
        current[0].note = text


class Run:
    """Starts the steps of a task, each as soon as what it needs is there; made by `steps`."""

    def __init__(self, display: Display, steps: list[Step]) -> None:
        self.steps = steps
        self._display = display

    def __call__(
        self,
        name: str,
        function: Callable[..., Any],
        *arguments: Any,
        after: tuple[Step, ...] = (),
        milestone: Step | None = None,
    ) -> Step:
        """Start a step and give its handle.

        Args:
            name: what the user sees.
            function: what the step does.
            arguments: for the function; a handle among them is waited for and replaced by its result.
            after: steps that only have to be over.
            milestone: a step that this one reaches on its way; the function sets its `done` when it is there.
        """
        step = Step(name, (*(argument for argument in arguments if isinstance(argument, Step)), *after))
        self.steps.append(step)
        if milestone:
            milestone.needs = (step,)
        work = functools.partial(_run_step, step, self._display, function, arguments, milestone)
        # Daemon threads: after Ctrl-C the process must be able to end while one of them hangs on the network.
        threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
        return step


@contextlib.contextmanager
def steps(stderr: bool = False) -> Iterator[Run]:
    """Run the steps of a task side by side.

    A step whose need has failed is skipped. Leaving the block waits for all steps and raises the first error.

    Args:
        stderr: tell of them on standard error, so that standard output holds nothing but a result for scripts.
    """
    from environments import displays

    told: list[Step] = []
    with spoken_aside(stderr), displays.chosen(told) as display:
        run = Run(display, told)
        try:
            yield run
            for step in run.steps:
                # Waiting with a timeout keeps the main thread open to Ctrl-C.
                while not step.done.wait(0.2):
                    pass
        except KeyboardInterrupt:
            _interrupt(run.steps)
            raise
    for step in run.steps:
        if step.error:
            raise step.error


def on_interrupt(action: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """While the block runs, Ctrl-C also calls `action`, in the main thread."""

    @contextlib.contextmanager
    def registered() -> Iterator[None]:
        _interruptions.append(action)
        try:
            yield
        finally:
            _interruptions.remove(action)

    return registered()


def _interrupt(started: list[Step]) -> None:
    """Let what must not be cut off (Terraform) come to its end; a second Ctrl-C asks it again, which makes it stop."""
    running = [step.name for step in started if not step.done.is_set()]
    place = f" in: {', '.join(running)}" if running else ""
    say(f"interrupted{place}; the same command goes on from here", "yellow")
    for step in started:
        step.skipped |= not step.done.is_set()  # what has not begun does not begin any more
    for _ in range(2):
        try:
            for action in list(_interruptions):
                action()
            while _interruptions:
                time.sleep(0.1)
            return
        except KeyboardInterrupt:
            say("interrupted again", "yellow")


def _run_step(
    step: Step,
    display: Display,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    milestone: Step | None,
) -> None:
    for need in step.needs:
        need.done.wait()
    try:
        if step.skipped or any(need.error or need.skipped for need in step.needs):
            step.skipped = True
        else:
            _work(step, display, function, [a.result if isinstance(a, Step) else a for a in arguments])
    except BaseException as error:
        step.error = step.error or error  # nobody reads the output any more
    finally:
        if milestone and not milestone.done.is_set():
            milestone.skipped = step.skipped or step.error is not None
            milestone.done.set()
        step.done.set()


def _work(step: Step, display: Display, function: Callable[..., Any], arguments: list[Any]) -> None:
    _current.set((step, display))
    step.begin = time.monotonic()
    display.begun(step)
    try:
        step.result = function(*arguments)
    except BaseException as error:
        step.error = error
    step.seconds = time.monotonic() - step.begin
    display.ended(step)
