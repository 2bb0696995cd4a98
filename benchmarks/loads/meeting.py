"""Where edits wait for each other, so that what is timed begins when all their processes stand."""

import asyncio
import time

import ray


@ray.remote(num_cpus=0)
class Meeting:
    """Lets everybody go when the last has come."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self._complete = asyncio.Event()
        self._complete_at = 0.0

    async def join(self) -> float:
        """Wait for the others; when the last one came, in wall-clock time of the machine."""
        self._missing -= 1
        if self._missing == 0:
            self._complete_at = time.time()
            self._complete.set()
        await self._complete.wait()
        return self._complete_at
