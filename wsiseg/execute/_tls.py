"""Certificates between the processes of a Dask cluster: who has none is not spoken to.

A Dask scheduler runs the code it is sent. On a machine or network with other users it must know whom it listens to.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from distributed import Security

from wsiseg.errors import ConfigError

DAYS = 365
"""For how long certificates are good."""

UNUSED = (
    *("content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "encipher_only", "decipher_only"),
)
"""What these certificates' keys are not for."""

FILES = ("ca.pem", "cert.pem", "key.pem")


def make_certificates(folder: Path, *, days: int = DAYS) -> None:
    """Make an authority and one certificate, which scheduler, workers and clients share, readable by their owner alone.

    Raises
    ------
    ConfigError
        If some are there already, or the folder cannot be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    if any((folder / name).exists() for name in FILES):
        raise ConfigError(f"{folder}: holds certificates already; use them, or choose another folder")

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def begun(subject: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("wsiseg authority"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))  # clocks of nodes differ
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def usage(*, signs_others: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs_others,
            key_cert_sign=signs_others,
            crl_sign=signs_others,
            **dict.fromkeys(UNUSED, False),
        )

    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    signed = (
        begun("wsiseg authority", authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_others=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
    )
    # The authority's key is not kept: nobody can make another certificate of it.
    ca = signed.sign(authority, hashes.SHA256())
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    cert = (
        begun("wsiseg", own.public_key())
        .add_extension(names, critical=False)
        .add_extension(usage(signs_others=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
        )
        .sign(authority, hashes.SHA256())
    )
    secret = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    contents = (
        ca.public_bytes(serialization.Encoding.PEM),
        cert.public_bytes(serialization.Encoding.PEM),
        secret,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file, content in zip(FILES, contents, strict=True):
            handle = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as out:
                out.write(content)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}); choose another") from error


def security(folder: str) -> Security:
    """What Dask needs to speak to those alone that hold the certificates of a folder.

    Raises
    ------
    ConfigError
        If certificates are missing, or others may read the key.
    """
    ca, cert, key = (Path(folder).expanduser() / name for name in FILES)
    for path in (ca, cert, key):
        if not path.is_file():
            raise ConfigError(f"{path}: no certificate; make them with wsiseg cohort certs {folder}")
    if key.stat().st_mode & 0o077:
        raise ConfigError(f"{key}: others may read it; chmod 600 {key}")
    roles = ("client", "scheduler", "worker")
    return Security(  # type: ignore[no-untyped-call]
        tls_ca_file=str(ca),
        require_encryption=True,
        **{f"tls_{role}_cert": str(cert) for role in roles},
        **{f"tls_{role}_key": str(key) for role in roles},
    )
