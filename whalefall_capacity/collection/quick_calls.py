"""Calls on sockets that return at once, made without letting go of the interpreter.

Python lets another thread run during each call on a socket, and its own has to win the interpreter back. Where hundreds
of threads wait for it, that takes far longer than a call which never waits: `python -m benchmarks scale`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
from collections.abc import Callable
from typing import NoReturn

# Room for the address of any family. https://man7.org/linux/man-pages/man3/sockaddr.3type.html
ADDRESS_BYTES = 128
# Whatever the mode of the socket: to wait would stop the whole process.
AT_ONCE = socket.MSG_DONTWAIT

# Unlike CDLL, it keeps the interpreter.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.recv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.send.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
_libc.recv.restype = _libc.send.restype = ctypes.c_ssize_t
_libc.getsockname.argtypes = _libc.getpeername.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


def receive(descriptor: int, most_bytes: int) -> bytes:
    """Return what has arrived, nothing when the other end has closed. Raises OSError; BlockingIOError for not yet."""
    buffer = ctypes.create_string_buffer(most_bytes)
    received = _checked(_libc.recv(descriptor, buffer, most_bytes, AT_ONCE))
    return ctypes.string_at(buffer, received)


def send(descriptor: int, content: bytes) -> int:
    """Send what there is room for and return how many bytes. Raises OSError; BlockingIOError when there is none."""
    return _checked(_libc.send(descriptor, content, len(content), AT_ONCE))


def hang_up(end: socket.socket) -> None:
    """Close a connection so that its other side hears at once, though somebody may hold a duplicate of this end."""
    _libc.shutdown(end.fileno(), socket.SHUT_RDWR)
    close(end)


def close(end: socket.socket) -> None:
    """Close a socket, if it is open."""
    _libc.close(end.detach())


def own_address(descriptor: int) -> bytes:
    """Return the address of this end, as the system has it. Raises OSError."""
    return _address(_libc.getsockname, descriptor)


def peer_address(descriptor: int) -> bytes:
    """Return the address of the other end, as the system has it. Raises OSError."""
    return _address(_libc.getpeername, descriptor)


def leads(descriptor: int, to: bytes, own: bytes) -> bool:
    """Tell whether a descriptor, which may be none, is the end of a connection from the address *own* to another."""
    # Where there is no socket, it is not connected or closed meanwhile, there is no address.
    return _found(_libc.getpeername, descriptor) == to and _found(_libc.getsockname, descriptor) == own


def duplicate(descriptor: int) -> socket.socket:
    """Return a socket of its own for the connection behind a descriptor. Raises OSError."""
    return socket.socket(fileno=_checked(_libc.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)))


def next_descriptors(count: int, like: int) -> list[int]:
    """Return the numbers that the next files of this process will have, unless others open or close any meanwhile.

    The system gives each file the lowest number that is free, here to duplicates of *like*. Where there is not room for
    as many, there are fewer.
    """
    taken: list[int] = []
    while len(taken) < count and (descriptor := _libc.dup(like)) >= 0:
        taken.append(descriptor)
    for descriptor in taken:
        _libc.close(descriptor)
    return taken


def _address(call: Callable[..., int], descriptor: int) -> bytes:
    found = _found(call, descriptor)
    return found if found is not None else _failed()


def _found(call: Callable[..., int], descriptor: int) -> bytes | None:
    address, length = ctypes.create_string_buffer(ADDRESS_BYTES), ctypes.c_uint32(ADDRESS_BYTES)
    return address.raw[: length.value] if call(descriptor, address, ctypes.byref(length)) == 0 else None


def _checked(result: int) -> int:
    return result if result >= 0 else _failed()


def _failed() -> NoReturn:
    error = ctypes.get_errno()
    raise OSError(error, os.strerror(error))
