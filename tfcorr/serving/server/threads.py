"""Work that may hang, on threads that nobody waits for when the process ends."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


async def within(
    seconds: float, work: Callable[[], Result], late: Callable[[Result], object] = lambda result: None
) -> Result:
    """Runs `work` in a daemon thread and returns its result. A result after the timeout is passed to `late`.

    asyncio.to_thread does not fit: the event loop waits for its threads on exit. Raises: TimeoutError.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Result] = loop.create_future()

    def deliver(result: Result | None, error: BaseException | None) -> None:
        if answer.done():
            if error is None:
                late(result)  # type: ignore[arg-type]
        elif error is None:
            answer.set_result(result)  # type: ignore[arg-type]
        else:
            answer.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # whoever waits gets it
            error = raised
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wait_for(answer, seconds)
