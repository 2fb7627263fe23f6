"""Asks the history for Flower's pages: in threads of its own, a bounded number at once and in bounded time.

Whatever is wrong with the history comes out as a HistoryError of one sentence, so that the pages can show Flower's own
memory instead; what is wrong with a search as a SearchError.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

from flowerbed.history.problems import HistoryError
from flowerbed.history.query import Query
from flowerbed.history.search import SearchError
from flowerbed.settings import SettingsError

#: questions at once, and those of one person
THREADS, THREADS_OF_ONE = 4, 3
#: questions that may wait or be answered; the next is refused
MOST_ASKED = 32
#: how long an answer is waited for, in seconds; the database is told to give up before
SECONDS = 5.0
#: how long a history that is not there is not asked again, in seconds
PAUSE = 5.0
#: kinds of HistoryError that hold for every question: nobody can cause them by what they ask
_LASTING = ("down", "denied", "missing", "locked", "newer", "damaged", "schema")

logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


class History:
    """The history as the pages see it; for one event loop."""

    def __init__(self, url: str) -> None:
        #: what keeps this history from ever answering
        self._broken: HistoryError | None = None
        try:
            self._query: Query | None = Query(url)
        except SettingsError as error:
            self._query, self._broken = None, HistoryError("url", str(error))
            logger.warning("%s", error)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="flowerbed-history")
        #: a person's turns, as long as anything of theirs is under way
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._asked = 0
        self._failure: tuple[float, HistoryError] | None = None

    async def ask(self, who: str, question: Callable[[Query], _Answer]) -> _Answer:
        """The answer to a question of somebody's; raises HistoryError or SearchError."""
        if self._broken is not None:
            raise self._broken
        if self._failure is not None and time.monotonic() - self._failure[0] < PAUSE:
            raise self._failure[1]
        if self._asked >= MOST_ASKED:
            raise HistoryError("busy", "Too many people are asking the history at once: try again in a moment.")
        turns = self._turns.get(who)
        if turns is None:
            turns = self._turns[who] = asyncio.Semaphore(THREADS_OF_ONE)
        self._asked += 1
        try:
            answer = await asyncio.wait_for(self._run(turns, question), SECONDS)
        except asyncio.TimeoutError:
            raise HistoryError("slow", f"The history did not answer within {SECONDS:.0f} seconds.") from None
        except HistoryError as error:
            if error.kind in _LASTING:
                self._failure = (time.monotonic(), error)
            raise
        finally:
            self._asked -= 1
        self._failure = None
        return answer

    async def _run(self, turns: asyncio.Semaphore, question: Callable[[Query], _Answer]) -> _Answer:
        await turns.acquire()
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._answer, question)

        def done(_: object) -> None:
            # the loop may have ended
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(turns.release)

        # a thread is taken until its question has ended, whether or not somebody still waits for the answer
        future.add_done_callback(done)
        return await asyncio.wrap_future(future)

    def _answer(self, question: Callable[[Query], _Answer]) -> _Answer:
        assert self._query is not None  # noqa: S101  # _broken was looked at
        try:
            return question(self._query)
        except (HistoryError, SearchError):
            raise
        except Exception as error:
            logger.exception("A question to the history failed.")
            raise HistoryError("other", f"The history cannot be read: {type(error).__name__}.") from error
