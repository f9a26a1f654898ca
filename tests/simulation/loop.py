"""An event loop with virtual time, for many simulated processes, whose every choice comes from one seed.

Time jumps to the next timer when nothing is ready. Each callback belongs to the process in whose context it was made;
a process's own callbacks keep their order, as asyncio promises, and which process goes next is drawn by lot. One can be
frozen, as by SIGSTOP, and killed, as by SIGKILL: then none of its callbacks ever runs again, not even a `finally`.
No threads, no sockets: `run_in_executor` runs the function on the loop, at a moment drawn by lot.
"""

import asyncio
import contextlib
import contextvars
import heapq
import random
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

from manifests.errors import WherryError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Problem: TypeAlias = dict[str, Any]
MOST_STEPS_AT_ONCE = 100_000  # without time going by: something spins
MOST_STEPS = 400_000  # ten times what a history takes
EXECUTOR_S = 0.002
LEAST_STEP_S = 1e-6
BEGIN_S = 1_000.0


class SpinError(Exception):
    """So many callbacks ran that time should have gone by."""


class DeadlockError(Exception):
    """Nothing is ready and no timer is set, but what is waited for has not come."""


class ProcessKilledError(BaseException):
    """Ends the synchronous code of a process that killed itself, at a crash point."""


class Process:
    """What lives and dies together: the tasks and timers of one simulated process."""

    __slots__ = ("_loop", "crash", "is_dead", "is_frozen", "name", "on_death", "ready")

    def __init__(self, loop: "SimLoop", name: str) -> None:
        self._loop = loop
        self.name = name
        self.ready: deque[Handle] = deque()
        self.is_dead = False
        self.is_frozen = False
        self.crash: object = None  # an armed CrashPoint
        self.on_death: list[Callable[[], None]] = []

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> "asyncio.Task[T]":
        """Run the coroutine as a task of this process; all that it begins is this process's, too."""
        context = contextvars.copy_context()
        context.run(CURRENT.set, self)
        return self._loop.create_task(work, name=name, context=context)

    def freeze(self) -> None:
        """Run nothing of it until `thaw`; what becomes ready meanwhile waits."""
        self.is_frozen = True
        self._loop.forget(self)

    def thaw(self) -> None:
        self.is_frozen = False
        if self.ready and not self.is_dead:
            self._loop.note_ready(self)

    def kill(self) -> None:
        """End it at once. Its sockets close; nothing else of it ever runs."""
        if self.is_dead:
            return
        self.is_dead = True
        self._loop.forget(self)
        self._loop.keep(self.ready)
        self.ready = deque()
        for react in self.on_death:
            react()


CURRENT: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class Handle(asyncio.TimerHandle):
    """A callback that is due, now or later, in its process."""

    __slots__ = ("args", "call", "context", "is_cancelled", "process", "when_s")

    def __init__(
        self,
        call: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        process: Process,
        when_s: float,
    ) -> None:
        self.call, self.args, self.context, self.process, self.when_s = call, args, context, process, when_s
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_s

    def __repr__(self) -> str:
        return f"<Handle {self.call!r} of {self.process.name} at {self.when_s}>"


class SimTask(asyncio.Task[T]):
    """A task with a number for its hash, so that no set of tasks is in an order of addresses."""

    def __init__(self, *args: Any, number: int, **named: Any) -> None:
        self._number = number
        super().__init__(*args, **named)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.AbstractEventLoop):
    """Run a simulation with `run`. `problems` is what asyncio would have logged: exceptions that nobody took."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(f"loop/{seed}")
        self._now_s = BEGIN_S
        self._timers: list[tuple[float, int, Handle]] = []
        self._sequence = 0
        self._runnable: list[Process] = []
        self._kept: list[object] = []  # what a kill cut short: were it freed now, its clean-up would run
        self._tasks: list[asyncio.Task[Any]] = []
        self.world = Process(self, "world")
        self.problems: list[Problem] = []
        self.steps = 0
        self._world_context = contextvars.copy_context()
        self._world_context.run(CURRENT.set, self.world)
        self._is_running = False
        self._is_closed = False

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run the simulation's own coroutine to its end, and all processes meanwhile."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=lambda _: None, finalizer=self._finalize)
        events._set_running_loop(self)
        self._is_running = True
        try:
            task = self.world.spawn(main, name="main")
            self._run_until(task)
            return task.result()
        finally:
            self._is_running = False
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _run_until(self, task: "asyncio.Task[Any]") -> None:
        runnable, rng = self._runnable, self._rng.random
        steps_now = 0
        while not task.done():
            if not runnable:
                self._pass_time()
                steps_now = 0
                continue
            at = int(rng() * len(runnable)) if len(runnable) > 1 else 0
            process = runnable[at]
            handle = process.ready.popleft()
            if not process.ready:
                runnable[at] = runnable[-1]
                runnable.pop()
            if handle.is_cancelled:
                continue
            self.steps += 1
            steps_now += 1
            if steps_now % 1_000 == 0:
                self._now_s += LEAST_STEP_S  # work takes time, if only so much that rounding never makes it stand still
            if steps_now > MOST_STEPS_AT_ONCE or self.steps > MOST_STEPS:
                raise SpinError(f"{handle!r} and others spin at {self._now_s}")
            self._run_handle(handle)

    def _run_handle(self, handle: Handle) -> None:
        try:
            handle.context.run(handle.call, *handle.args)
        except ProcessKilledError:
            self.keep(handle)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self.call_exception_handler({"message": f"{handle!r} raised", "exception": error})

    def _pass_time(self) -> None:
        """Go on to the next timer that is still wanted, and make ready what is due then."""
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        if not timers:
            raise DeadlockError(f"nothing will ever happen again after {self._now_s}")
        self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            handle = heapq.heappop(timers)[2]
            if not handle.is_cancelled:
                self._enqueue(handle)

    def _enqueue(self, handle: Handle) -> None:
        process = handle.process
        if process.is_dead:
            self._kept.append(handle)
            return
        process.ready.append(handle)
        if len(process.ready) == 1 and not process.is_frozen:
            self._runnable.append(process)

    # What processes need.

    def note_ready(self, process: Process) -> None:
        if process not in self._runnable:
            self._runnable.append(process)

    def forget(self, process: Process) -> None:
        if process in self._runnable:
            self._runnable.remove(process)

    def keep(self, thing: object) -> None:
        self._kept.append(thing)

    def in_world(self, delay_s: float, call: Callable[..., object], *args: Any) -> Handle:
        """Have it called after that time, whatever becomes of the process that asks for it."""
        return self._at(self._now_s + delay_s, call, args, self._world_context)

    # The loop's interface, as far as asyncio needs it.

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> Handle:
        context = contextvars.copy_context() if context is None else context
        handle = Handle(callback, args, context, context.get(CURRENT) or self.world, self._now_s)
        self._enqueue(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> Handle:
        return self._at(self._now_s + delay, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> Handle:
        return self._at(when, callback, args, context)

    def _at(
        self, when: float, call: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> Handle:
        context = contextvars.copy_context() if context is None else context
        handle = Handle(call, args, context, context.get(CURRENT) or self.world, when)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = SimTask(
            coro, loop=self, name=name or "task", context=context, number=len(self._tasks)
        )
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        self.call_later(self._rng.random() * EXECUTOR_S, run)
        return future

    def call_exception_handler(self, context: Problem) -> None:
        self.problems.append(context)

    def _finalize(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Close a generator that was left before its end."""
        self.call_soon(self.create_task, agen.aclose())

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return self._is_closed

    def get_debug(self) -> bool:
        return False

    def close(self) -> None:
        """Free what is left, without a word: half done work of killed processes can't be ended well."""
        self._is_closed = True
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own way to say: I know
        quiet, sys.unraisablehook = sys.unraisablehook, _ignore
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=lambda _: None, finalizer=None)
        events._set_running_loop(self)
        try:
            self._timers.clear()
            self._kept.clear()
            self.world.ready.clear()
            for process in self._runnable:
                process.ready.clear()
            self._runnable.clear()
            for task in self._tasks:
                if not task.done():
                    with contextlib.suppress(Exception):  # what it meets while it is closed is of no interest
                        task.get_coro().close()
        finally:
            self._tasks.clear()
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
            sys.unraisablehook = quiet

    def __enter__(self) -> "SimLoop":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def new_loop(seed: str) -> SimLoop:
    return SimLoop(seed)  # type: ignore[abstract]  # what it leaves out needs threads, sockets or signals


def later(delay_s: float, call: Callable[..., object], *args: Any) -> asyncio.Handle:
    """Have the world call it after that time, not the process that asks; on any other loop simply later."""
    loop = asyncio.get_running_loop()
    return loop.in_world(delay_s, call, *args) if isinstance(loop, SimLoop) else loop.call_later(delay_s, call, *args)


def carried_out(work: Callable[[], T], reply: "asyncio.Future[T]") -> Callable[[], None]:
    """Do the work, and return what tells whoever still waits for the reply what came of it."""
    try:
        result = work()
    except WherryError as error:
        refusal = error
        return lambda: None if reply.done() else reply.set_exception(refusal)
    return lambda: None if reply.done() else reply.set_result(result)


def _ignore(_: object) -> None:
    pass
