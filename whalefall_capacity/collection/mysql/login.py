"""Logins to servers of the MySQL family: how the password is proved, or sent, for each method that they ask for.

A server chooses the method, and so does whoever stands in its place. Proofs (`mysql_native_password`, ed25519, the
fast path of `caching_sha2_password`) show no password. The password itself goes to a server whose certificate was
verified; inside TLS that was not verified, and through a Unix socket, as MySQL's own clients do it, for the two SHA-2
methods alone; unencrypted only under a key that the fleet file names, or under the server's own where TLS was disabled
on purpose. https://dev.mysql.com/doc/refman/8.4/en/caching-sha2-pluggable-authentication.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from whalefall_capacity.collection.sizes import Target
from whalefall_capacity.errors import CollectionError

# What a server of `caching_sha2_password` says after the proof: it knew it, or it wants the password itself.
PROOF_ACCEPTED = b"\x01\x03"
PASSWORD_WANTED = b"\x01\x04"
# How its public key is asked for; for `sha256_password` the driver asks by itself.
KEY_REQUEST = b"\x02"
SALT_BYTES = 20


def logins(target: Target) -> dict[str, Callable[[Any], Any]]:
    """Return how each method is answered that the driver must not answer by itself, for a connection of the driver."""
    faults = {"mysql_old_password": "is broken"}
    if not target.verifies_server:
        faults |= dict.fromkeys(("mysql_clear_password", "dialog"), "sends the password as it is")
    return {
        "caching_sha2_password": partial(CachingSha2Login, target),
        "sha256_password": partial(Sha256Login, target),
        **{method: partial(RefusedLogin, f"{method}, which {fault}") for method, fault in faults.items()},
    }


@dataclass
class RefusedLogin:
    """A method that gets no answer."""

    method: str
    connection: Any

    def authenticate(self, _: Any) -> Any:
        """Refuse. Raises CollectionError."""
        raise CollectionError(
            f"the server asks for {self.method}; the password was not sent. To a server whose certificate is verified "
            "it would be: set tls.mode: verify-full and tls.ca_file in the fleet file. docs/servers.md"
        )


@dataclass
class _Sha2Login:
    target: Target
    connection: Any

    @property
    def _password(self) -> bytes:
        password: bytes = self.connection.password
        return password

    def _ask(self, answer: bytes) -> Any:
        self.connection.write_packet(answer)
        return self._next()

    def _next(self) -> Any:
        # Handlers of the driver's `auth_plugin_map` have no other way to read.
        return self.connection._read_packet()

    def _take_salt(self, switch_request: Any) -> None:
        self.connection.salt = switch_request.read_all().removesuffix(b"\0")

    @property
    def _is_unseen(self) -> bool:
        """True when nobody on the way can read: inside TLS, or where there is no way."""
        return self.target.is_local or bool(self.connection._secure)

    def _encrypted(self, ask_for_key: Callable[[], bytes]) -> bytes:
        """Return the password under the key that is pinned, or the server's where TLS was disabled on purpose."""
        key_file = self.target.tls.server_public_key_file
        if key_file is not None:
            return encrypted(self._password, self.connection.salt, _key_of(key_file))
        if self.target.tls.mode != "disable":
            raise CollectionError(
                "the server asks for the whole password on a connection without TLS; it was not sent. Enable TLS on "
                "the server, or name its key with tls.server_public_key_file in the fleet file. docs/servers.md"
            )
        return encrypted(self._password, self.connection.salt, ask_for_key())


class CachingSha2Login(_Sha2Login):
    """`caching_sha2_password`: a proof, and the password only when the server does not know the proof."""

    def authenticate(self, packet: Any) -> Any:
        """Answer the server's wish, and return what it says to that. Raises CollectionError."""
        if packet.is_auth_switch_request():
            self._take_salt(packet)
            packet = self._ask(proof(self._password, self.connection.salt))
        said = packet.get_all_data()
        if said == PROOF_ACCEPTED:
            return self._next()
        if said != PASSWORD_WANTED:
            return packet
        if self._is_unseen:
            return self._ask(self._password + b"\0")
        return self._ask(self._encrypted(lambda: self._ask(KEY_REQUEST).get_all_data()[1:]))


class Sha256Login(_Sha2Login):
    """`sha256_password`: always the password."""

    def authenticate(self, packet: Any) -> Any:
        """Answer the server's wish, and return what it says to that. Raises CollectionError."""
        switched = packet.is_auth_switch_request()
        if switched:
            self._take_salt(packet)
        if not self._password or self._is_unseen:
            return self._ask(self._password + b"\0")
        # Named in the greeting, the method has had the driver ask for the key already: the packet is the answer.
        ask_for_key = (lambda: self._ask(b"\x01").get_all_data()[1:]) if switched else lambda: packet.get_all_data()[1:]
        return self._ask(self._encrypted(ask_for_key))


def proof(password: bytes, salt: bytes) -> bytes:
    """Return what shows that the password is known: SHA256(p) XOR SHA256(SHA256(SHA256(p)) + salt)."""
    if not password:
        return b""
    once = hashlib.sha256(password).digest()
    mask = hashlib.sha256(hashlib.sha256(once).digest() + salt).digest()
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))


def encrypted(password: bytes, salt: bytes, public_key: bytes) -> bytes:
    """Return the password as only the owner of *public_key*, a PEM, can read it. Raises CollectionError."""
    # Imported here: most servers never ask for it.
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public_key)
    except ValueError:
        raise CollectionError("the server's public key is not a PEM file of an RSA key") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise CollectionError("the server's public key is not an RSA key")
    salt = salt[:SALT_BYTES]
    # The two sides agreed on SHA-1 here, of which no weakness matters in OAEP.
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303
    masked = bytes(byte ^ salt[at % len(salt)] for at, byte in enumerate(password + b"\0"))
    return key.encrypt(masked, oaep)


def _key_of(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CollectionError(f"cannot read tls.server_public_key_file: {error}") from None
