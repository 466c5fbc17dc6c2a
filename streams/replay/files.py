"""What the sources share of reading files: fingerprints, texts of either encoding, items that no catalogue names."""

import gzip
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path

from streams.catalogue import Item
from streams.replay.interactions import BadSource

EDGE = 65_536


def fingerprint(paths: Iterable[Path], *parameters: object) -> str:
    """A hash of the parameters and of the files' sizes and first and last 64 kB: quick on files of gigabytes."""
    digest = blake2b(repr(parameters).encode(), digest_size=12)
    for path in paths:
        size = existing(path).stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(EDGE))
            file.seek(max(0, size - EDGE))
            digest.update(file.read(EDGE))
    return digest.hexdigest()


def existing(path: Path) -> Path:
    """The path, if there is a file. Raises `BadSource`."""
    if not path.is_file():
        raise BadSource(f"there is no file {path}")
    return path


def plain(path: Path) -> bytes:
    """The bytes of a file, unpacked when its name ends in `.gz`. Raises `BadSource`."""
    try:
        return gzip.decompress(existing(path).read_bytes()) if path.suffix == ".gz" else existing(path).read_bytes()
    except (OSError, EOFError) as error:
        raise BadSource(f"{path} cannot be read: {error}") from None


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank: UTF-8, or Latin-1, which the older MovieLens releases use."""
    data = plain(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def with_the_rest(known: Mapping[str, Item], names: Iterable[str]) -> Iterator[Item]:
    """The known items, then one for each further id, which must serve as its own title."""
    yield from known.values()
    for name in names:
        if name not in known:
            yield Item(item_id=name, title=name)
