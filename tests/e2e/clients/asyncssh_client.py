"""What a program that uses asyncssh does: asyncssh_client.py DIR PORT USER copy HERE THERE BACK"""

import asyncio
import sys

import asyncssh

directory, port, user, _, here, there, back = sys.argv[1:]


async def main():
    options = {
        "port": int(port),
        "username": user,
        "client_keys": [directory + "/client_key"],
        "known_hosts": directory + "/known_hosts",
        "agent_path": None,
        "config": None,
    }
    async with asyncssh.connect("127.0.0.1", **options) as connection:
        async with connection.start_sftp_client(path_encoding=None) as sftp:
            await sftp.put(here.encode(), there.encode(), recurse=True, preserve=True, max_requests=64)
            assert await sftp.isdir(there.encode())
            names = await sftp.glob(there.encode() + b"/**/script")
            assert names == [there.encode() + b"/sub/script"], names
            await sftp.get(there.encode(), back.encode() + b"/x", recurse=True, preserve=True)
            await sftp.rmtree(there.encode())
            assert not await sftp.exists(there.encode())


asyncio.run(main())
