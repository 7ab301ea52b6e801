"""The world outside of a test host: says who asks, over TCP and UDP, and answers for names.

    outside.py READY

Creates the file READY once everything listens.
"""

import socket
import struct
import sys
import threading

PORT = 7000
NAMES = {"outside.test": ("203.0.113.9", "2001:db8:9::9")}


# Datagrams are answered from the address that they were sent to.
UDP = [
    (socket.AF_INET, "203.0.113.9"),
    (socket.AF_INET, "198.51.100.1"),
    (socket.AF_INET6, "2001:db8:9::9"),
    (socket.AF_INET6, "2001:db8:51::1"),
]
DNS = [(socket.AF_INET, "203.0.113.53")]


def open_socket(family, kind, port, address=None):
    opened = socket.socket(family, kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    everywhere = "" if family == socket.AF_INET else "::"
    opened.bind((address or everywhere, port))
    return opened


def tcp(family):
    listener = open_socket(family, socket.SOCK_STREAM, PORT)
    listener.listen(64)

    def answer_one(client, peer):
        # One that closes with something unread resets the connection.
        client.settimeout(10)
        try:
            client.recv(64)
            client.sendall(f"outside sees {peer[0]}\n".encode())
        except OSError:
            pass
        client.close()

    def serve():
        while True:
            threading.Thread(target=answer_one, args=listener.accept(), daemon=True).start()

    return serve


def udp(family, address):
    sock = open_socket(family, socket.SOCK_DGRAM, PORT, address)

    def serve():
        while True:
            _, peer = sock.recvfrom(2048)
            sock.sendto(f"outside sees {peer[0]}\n".encode(), peer)

    return serve


def answer(query):
    """One answer to one question of type A or AAAA; none to any other."""
    end, labels = 12, []
    while query[end]:
        labels.append(query[end + 1 : end + 1 + query[end]].decode())
        end += query[end] + 1
    name, (kind,) = ".".join(labels).lower(), struct.unpack("!H", query[end + 1 : end + 3])
    question, data = query[12 : end + 5], b""
    v4, v6 = NAMES.get(name, ("", ""))
    if v4 and kind == 1:
        data = socket.inet_pton(socket.AF_INET, v4)
    if v6 and kind == 28:
        data = socket.inet_pton(socket.AF_INET6, v6)
    code = 0 if v4 else 3
    header = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 1 if data else 0, 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data if data else b""
    return header + question + record


def dns(family, address):
    sock = open_socket(family, socket.SOCK_DGRAM, 53, address)

    def serve():
        while True:
            query, peer = sock.recvfrom(2048)
            try:
                sock.sendto(answer(query), peer)
            except (IndexError, UnicodeDecodeError, struct.error):
                pass

    return serve


servers = [tcp(socket.AF_INET), tcp(socket.AF_INET6)]
servers += [udp(*at) for at in UDP] + [dns(*at) for at in DNS]
for server in servers:
    threading.Thread(target=server, daemon=True).start()
open(sys.argv[1], "w", encoding="utf-8").close()
threading.Event().wait()
