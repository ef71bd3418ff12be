"""The certificate authority of one lab, and what it signs.

Every lab makes its own and keeps it in its own folder, so no key is ever shared, committed or reused. Keys are
ECDSA P-256: an RSA key costs 100 ms of the seconds that a lab may take to come up, one of these 0.1 ms.
"""

import base64
import datetime
import tempfile
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from hybridnet.model.address import IPAddress

LIFETIME = datetime.timedelta(days=365)


class KeyPair(Struct, frozen=True):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME.crt`` and ``NAME.key`` (0600) into *folder* and return both paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        write_private(certificate, self.certificate)
        write_private(key, self.key)
        return certificate, key


def write_private(path: Path, content: bytes) -> None:
    """Write *content* so that only the owner ever could read it, and nobody reads half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:  # made with mode 0600
        file.write(content)
    Path(file.name).rename(path)


def private_key() -> bytes:
    """A new private key, PEM (SEC 1: for service accounts Kubernetes reads no other form)."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


class Authority:
    """Signs client and server certificates."""

    def __init__(self, pair: KeyPair) -> None:
        """Use an authority that exists."""
        self.pair = pair
        self._certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the authority's key is not an elliptic curve key")
        self._key = key

    @classmethod
    def create(cls, name: str) -> "Authority":
        """A new self-signed authority called *name*."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(subject, subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        return cls(KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key)))

    @classmethod
    def load_or_create(cls, folder: Path, name: str) -> "Authority":
        """The authority kept in *folder* as ``ca.crt`` and ``ca.key``, made on first use."""
        certificate, key = folder / "ca.crt", folder / "ca.key"
        if certificate.exists() and key.exists():
            return cls(KeyPair(certificate.read_bytes(), key.read_bytes()))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = cls.create(name)
        authority.pair.write(folder, "ca")
        return authority

    def client(self, user: str, groups: Iterable[str] = ()) -> KeyPair:
        """A client certificate: Kubernetes reads the user from CN and the groups from O."""
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        return self._issue(x509.Name(names), (ExtendedKeyUsageOID.CLIENT_AUTH,), ())

    def server(self, name: str, addresses: Iterable[IPAddress | str], names: Iterable[str] = ()) -> KeyPair:
        """A server certificate for *addresses* and DNS *names*; also good as a client's."""
        alternatives: list[x509.GeneralName] = [x509.IPAddress(ip_address(str(a))) for a in addresses]
        alternatives += [x509.DNSName(each) for each in (name, *names)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._issue(subject, usages, alternatives)

    def _issue(
        self,
        subject: x509.Name,
        usages: Sequence[x509.ObjectIdentifier],
        alternatives: Sequence[x509.GeneralName],
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._certificate.subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def kubeconfig(server: str, authority: bytes, client: KeyPair, user: str) -> bytes:
    """A kubeconfig (JSON, which is YAML) with everything inside: *server* is a URL, *authority* PEM."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    cluster = {"server": server, "certificate-authority-data": text(authority)}
    identity = {
        "client-certificate-data": text(client.certificate),
        "client-key-data": text(client.key),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": user, "user": identity}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
    }
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks of other machines may be behind
        .not_valid_after(now + LIFETIME)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
