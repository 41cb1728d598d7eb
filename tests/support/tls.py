"""A certificate authority of the test's own, made by openssl, and a server that it vouches for."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

# Python 3.13 verifies certificates strictly: RFC 5280 demands these.
_EXTENSIONS = """\
subjectAltName=DNS:localhost,IP:127.0.0.1
basicConstraints=CA:FALSE
keyUsage=digitalSignature
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def create_authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """
    Create an authority, and a server's certificate for ``localhost`` and ``127.0.0.1``.

    Returns:
        The authority's certificate, for ``SSL_CERT_FILE``, and the server's context.
    """
    authority, authority_key = folder / "authority.pem", folder / "authority.key"
    request, key, signed = folder / "server.csr", folder / "server.key", folder / "server.pem"
    extensions = folder / "extensions"
    extensions.write_text(_EXTENSIONS, "utf-8")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *new, "-days", "2", "-subj", "/CN=Authority of a test",
         "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", authority_key, "-out", authority],
        ["req", *new, "-subj", "/CN=localhost", "-keyout", key, "-out", request],
        ["x509", "-req", "-days", "2", "-in", request, "-CA", authority, "-CAkey", authority_key,
         "-CAcreateserial", "-extfile", extensions, "-out", signed],
    ):  # fmt: skip
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    return authority, context
