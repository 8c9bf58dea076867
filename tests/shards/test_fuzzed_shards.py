"""Two hundred folders of shards of an enemy: each is refused in one sentence, or holds what its manifest says."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image

from hostile import Files, bytes_like, fuzzed, json_like, refusal, written
from refine.shards.format import manifest
from refine.shards.reading.reader import Split, read_split
from support import png_of, synthetic, write_split

SIDE, CLASSES = 8, 3
Members = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Six images in two shards."""
    folder = tmp_path_factory.mktemp("healthy") / "split"
    write_split(folder, *synthetic(6, side=SIDE, classes=CLASSES), classes=CLASSES, samples_per_shard=4)
    return Files({path.name: path.read_bytes() for path in folder.iterdir()})


@fuzzed(200)
def test_a_folder_of_shards_is_refused_or_read(random: Random, healthy: Files, tmp_path: Path) -> None:
    folder = written(tmp_path / "split", _folder_like(random, healthy))
    read: list[Split] = []
    only_images = random.random() < 0.2
    if refusal(lambda: read.append(read_split(folder, only_images)), folder) is None:
        (split,) = read
        described = split.manifest
        assert split.images.shape == (described.samples, 3, described.side, described.side)
        assert len(split.keys.unique()) == described.samples
        assert only_images or split.labels.bincount(minlength=len(described.classes)).tolist() == described.counts
        assert only_images or len(split.infos) == described.samples
        assert torch.isfinite(torch.tensor([described.mean, described.std])).all()
        assert min(described.std) > 0


def _folder_like(random: Random, files: Files) -> Files:
    """A folder whose manifest or first shard is another one, and whose sum is mostly the right one."""
    made, shard = Files(files), "shard-000000.tar"
    change = random.choice(("manifest", "manifest", "sizes", "bytes", "tar", "members", "members", "members", "pixels"))
    if change == "manifest":
        made[manifest.NAME] = json_like(random, files[manifest.NAME])
    elif change == "sizes":
        made[manifest.NAME] = _sizes_like(random, files[manifest.NAME])
    elif change == "bytes":
        made[manifest.NAME] = bytes_like(random, files[manifest.NAME])
    elif change == "tar":
        made[shard] = bytes_like(random, files[shard], places=random.choice((512, 2**30)))
    else:
        made[shard] = _tar(_members_like(random, _members(files[shard]), pixels=change == "pixels"))
    if random.random() < 0.95:
        sums = (hashlib.sha256(content[shard]).hexdigest().encode() for content in (files, made))
        made[manifest.NAME] = made[manifest.NAME].replace(*sums)
    if random.random() < 0.05:
        name = random.choice(sorted(made))
        made[f"{name}/inside"] = made.pop(name)
    return made


def _sizes_like(random: Random, healthy: bytes) -> bytes:
    """A manifest that agrees with itself, and not with the shards."""
    content = json.loads(healthy)
    size = random.choice((1, 2, 5, 1000, 10**6, 10**9, 10**15))
    change = random.choice(("samples", "side", "classes", "counts", "shard twice"))
    if change == "samples":
        content["shards"][0]["samples"] = content["samples_per_shard"] = size
        content["counts"] = [size, *[0] * (CLASSES - 2), content["shards"][1]["samples"]]
    elif change == "side":
        content["side"] = min(size, 1024) if random.random() < 0.7 else size
    elif change == "classes":
        content["classes"] = [str(number) for number in range(min(size, 10**4))]
        content["counts"] = [6, *[0] * (len(content["classes"]) - 1)]
    elif change == "counts":
        random.shuffle(content["counts"])
        content["counts"][0] += 1
        content["counts"][1] -= 1
    else:
        content["shards"][1] = content["shards"][0]
        content["counts"] = [8, 0, 0]
    return json.dumps(content).encode()


def _members(shard: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def _tar(members: Members) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return whole.getvalue()


def _members_like(random: Random, members: Members, pixels: bool) -> Members:
    """A shard in which a file is another, or a thing with another name, or is there twice or not at all."""
    place = random.choice([place for place, (name, _) in enumerate(members) if name.endswith("png") or not pixels])
    name, content = members[place]
    ending = name.rpartition(".")[2]
    made = list(members)
    change = "content" if pixels else random.choice(("content", "content", "content", "name", "twice", "gone"))
    if change == "twice":
        return [*made, made[place]]
    if change == "gone":
        return made[:place] + made[place + 1 :]
    if change == "name":
        key = random.choice(("1_0", "-1", "9" * 18, "9" * 19, "x", "../0", "00000001", "", "x" * 200))
        made[place] = f"{key}.{ending}", content
    elif ending == "cls":
        made[place] = name, random.choice((b"", b"3", b"-1", b"1_0", b" 1", b"9" * 5000, b"2.0", b"0x1", b"\xff", b"2"))
    elif ending == "json":
        made[place] = name, json_like(random, content)
    else:
        made[place] = name, _png_like(random, content)
    return made


def _png_like(random: Random, healthy: bytes) -> bytes:
    """Another picture, a damaged one, or chunks that lie with right sums."""
    change = random.choice(("bytes", "mode", "header", "header", "bomb", "two headers"))
    if change == "bytes":
        return bytes_like(random, healthy, places=random.choice((60, 2**30)))
    if change == "mode":
        buffer = io.BytesIO()
        Image.new(random.choice(("1", "L", "P", "RGBA", "I;16", "RGB")), (SIDE, SIDE)).save(buffer, "PNG")
        return buffer.getvalue()
    sides = random.choice((SIDE, SIDE, 0, 9, 1024, 20_000, 2**31 - 1)), random.choice((SIDE, 0, 2**31 - 1))
    form = random.choice((8, 16, 1, 0)), random.choice((2, 0, 3, 4, 6, 9)), 0, 0, random.choice((0, 1, 7))
    header = b"IHDR", struct.pack(">IIBBBBB", *sides, *form)
    pixels = b"IDAT", zlib.compress(bytes(2**22 if change == "bomb" else SIDE * (1 + 3 * SIDE)))
    true = b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = (
        [true, pixels] if change == "bomb" else [true, header, pixels] if change == "two headers" else [header, pixels]
    )
    return png_of(*chunks, (b"IEND", b""))
