"""A relay on loopback that makes a registry look far away: 50 ms there and back, and at most
40 MB/s for each connection.

    python3 shaper.py PORT HOST PORT
"""

import asyncio
import collections
import os
import subprocess
import sys
import time

RATE = 40_000_000
ONE_WAY = 0.025
CHUNK = 128 << 10
# What is on its way at most: the line's own capacity and a little queue.
WINDOW = int(RATE * ONE_WAY * 4)
PORT = 20000 + os.getpid() % 10000
ADDRESS = f"127.0.0.1:{PORT}"


def start(registry):
    """Starts the relay in a process of its own."""
    relay = subprocess.Popen([sys.executable, __file__, str(PORT), *registry.rsplit(":", 1)])
    for _ in range(200):
        try:
            asyncio.run(_probe())
            return relay
        except OSError:
            time.sleep(0.02)
    raise SystemExit("bench: the relay did not start")


async def _probe():
    _, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.close()


async def _pass_on(reader, writer, rate, first):
    """Copies, each piece as late and as slowly as the line would have it."""
    line, room, more = collections.deque(), asyncio.Condition(), asyncio.Event()
    held = ended = 0
    loop = asyncio.get_running_loop()

    async def take():
        nonlocal held, ended
        free = loop.time()
        late = first
        while piece := await reader.read(CHUNK):
            free = max(free, loop.time()) + (len(piece) / rate if rate else 0)
            line.append((free + ONE_WAY + late, piece))
            late = 0
            held += len(piece)
            more.set()
            async with room:
                await room.wait_for(lambda: held < WINDOW)
        ended = 1
        more.set()

    async def give():
        nonlocal held
        while True:
            while not line:
                if ended:
                    return
                more.clear()
                await more.wait()
            due, piece = line.popleft()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            writer.write(piece)
            await writer.drain()
            async with room:
                held -= len(piece)
                room.notify_all()

    taking = asyncio.create_task(take())
    try:
        await give()
    finally:
        taking.cancel()
        writer.close()


async def _main(port, host, to):
    async def serve(reader, writer):
        up_reader, up_writer = await asyncio.open_connection(host, to, limit=1 << 20)
        both = (
            # Connecting took a round trip, too.
            _pass_on(reader, up_writer, None, 2 * ONE_WAY),
            _pass_on(up_reader, writer, RATE, 0),
        )
        await asyncio.gather(*both, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
