#!/usr/bin/env python3
"""Reads a pgrecall repository in a directory. Written from docs/format.md alone, to keep that page honest.

    read_repository.py REPOSITORY [--key FILE] list
    read_repository.py REPOSITORY [--key FILE] backup BACKUP-ID DIRECTORY    all files of a backup, below DIRECTORY
    read_repository.py REPOSITORY [--key FILE] wal CLUSTER FILE-NAME OUTPUT  one archived file

Needs cryptography, zstandard and xxhash. Checks every authentication on the way, and stops at the first that fails.
"""
import base64, hashlib, hmac, json, pathlib, struct, sys
import xxhash, zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DATA, META, REPOSITORY = 1, 2, 3
MANIFEST, ARCHIVE, DOMAIN_KEYS, KEY_LOG, IDENTITY, DAMAGE, SETTLED, EXPIRED, INDEX = 4, 8, 9, 10, 11, 12, 14, 15, 3
PLAIN_MAX, FRAME_MAX = 16 << 20, (16 << 20) + (128 << 10)

class Damaged(SystemExit):
    """Something in the repository is not what the format says: ends the program."""
def check(sound, what):
    if not sound:
        raise Damaged(f"read_repository: {what}")
def hkdf(key, salt, info):
    return HKDF(hashes.SHA256(), 32, salt or None, info).derive(key)
def unbase32(text):
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))
def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF

class Reader:
    """Takes values from the front of a byte string."""
    def __init__(self, data):
        self.data, self.at = data, 0
    def take(self, length):
        check(length <= len(self.data) - self.at, "it is cut short")
        self.at += length
        return self.data[self.at - length : self.at]
    def unpack(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))
    def number(self, form):
        return self.unpack(form)[0]
    def varint(self):
        value = shift = 0
        while True:
            byte = self.number("B")
            value, shift = value | (byte & 0x7F) << shift, shift + 7
            check(value < 1 << 64 and shift <= 70, "a varint exceeds 64 bits")
            if byte < 0x80:
                return value
    def string(self):
        return self.take(self.varint())
    def end(self):
        check(self.at == len(self.data), "something follows its end")

class Keys:
    """The keys of one domain, or (with an empty domain) of what belongs to none."""
    def __init__(self, suite, domain, id_key, classes):
        self.suite, self.domain, self.classes = suite, domain, classes
        self.chunk_key = hkdf(id_key, b"", b"pgrecall chunk id")
        self.digest_key = hkdf(id_key, b"", b"pgrecall digest")
    def chunk_id(self, plain):
        return hmac.digest(self.chunk_key, plain, "sha256")
    def digest(self, plain):
        return hmac.digest(self.digest_key, plain, "sha256")

class Sealing:
    """How the frames of one object open."""
    def __init__(self, keys, name, kind, suite, method, epoch, salt):
        check(suite == keys.suite, f"{name}: its suite is {suite}, the repository's {keys.suite}")
        check(method == (0 if suite == 0 else 1), f"{name}: key method {method}")
        self.keys, self.name, self.epoch, self.salt = keys, name, epoch, salt
        domain = keys.domain.encode()
        self.associated = struct.pack("<HBBI", 2, kind, suite, len(domain)) + domain + name.encode()
    def open(self, reader, number, last, key_class, section=0, chunk=b""):
        length = reader.number("I")
        check(16 <= length <= FRAME_MAX, f"{self.name}: a frame of {length} bytes")
        sealed, nonce = reader.take(length), struct.pack("<QBBH", number, section, last, 0)
        if self.keys.suite == 0:
            plain, tag = sealed[:-16], sealed[-16:]
            found = xxhash.xxh3_128_intdigest(self.associated + chunk + nonce + plain).to_bytes(16, "little")
            check(found == tag, f"{self.name}: a frame's checksum differs")
        else:
            key = hkdf(self.keys.classes[key_class, self.epoch], self.salt, b"pgrecall object " + bytes([key_class]))
            plain = AESGCM(key).decrypt(nonce, sealed, self.associated + chunk)
        codec, length = struct.unpack("<BI", plain[:5])
        check(codec < 2 and length <= PLAIN_MAX, f"{self.name}: codec {codec}, {length} bytes")
        plain = plain[5:]
        if codec == 1:
            plain = zstandard.ZstdDecompressor().decompress(plain, max_output_size=length)
        check(len(plain) == length, f"{self.name}: a frame has {len(plain)} bytes, not {length}")
        return plain

class Object:
    """A sealed object: its header, and what it takes to open its frames."""
    def __init__(self, keys, name, data, kind):
        self.keys, self.name, self.data, reader = keys, name, data, Reader(data)
        magic, version, found, suite, method, self.key_class, field, epoch, _ = reader.unpack("8sHBBBBHII")
        check((magic, version, found) == (b"pgrecall", 2, kind), f"{name}: {magic}, version {version}, kind {found}")
        salt, self.digest = reader.unpack("32s32s")
        reader.take(field)
        check(crc32c(data[: reader.at]) == reader.number("I"), f"{name}: the header's CRC differs")
        self.body_at, self.sealing = reader.at, Sealing(keys, name, kind, suite, method, epoch, salt)
    def frames(self, end=None):
        """The plaintexts of body frames, up to the one that ends at `end`, the last."""
        frames, bounds, reader = [], Reader(self.data[self.body_at : end]), Reader(self.data[self.body_at : end])
        while not frames or reader.at < len(reader.data):
            bounds.take(bounds.number("I"))
            last = int(bounds.at == len(bounds.data))
            frames.append(self.sealing.open(reader, len(frames), last, self.key_class))
        return frames
    def verified(self, plain):
        check(self.keys.digest(plain) == self.digest, f"{self.name}: the digest differs")
        return plain
    def document(self):
        document = json.loads(self.verified(b"".join(self.frames())))
        check(document["version"] == 1 and not document.get("features"), f"{self.name} is newer")
        return document["body"]
    def archived_file(self):
        length, count, crc, magic = struct.unpack("<III4s", self.data[-16:])
        check(magic == b"PGRT" and crc == crc32c(self.data[-16:-8]), f"{self.name}: its tail is damaged")
        trailer = Reader(self.data[(end := len(self.data) - 16 - length) : -16])
        self.sealing.open(trailer, 0, 1, META, section=1)
        trailer.end()
        frames = self.frames(end)
        check(len(frames) == count, f"{self.name}: {len(frames)} frames, not {count}")
        return self.verified(b"".join(frames))

class Repository:
    def __init__(self, path, key_file):
        self.path = pathlib.Path(path)
        root_bytes = self.read("pgrecall.json")
        root = json.loads(root_bytes)
        check((root["format"], root["version"], root["features"]) == ("pgrecall repository", 2, []), "another version")
        self.suite = {"none": 0, "aes-256-gcm": 1}[root["suite"]]
        if self.suite == 0:
            self.key = hashlib.sha256(b"pgrecall clear repository" + unbase32(root["id"])).digest()
        else:
            mark, key_id, secret, proof = pathlib.Path(key_file).read_text().strip().split(":")
            expected = hashlib.sha256(f"{key_id}:{secret}".encode()).digest()[:5]
            check(mark == "pgrecall-key-1" and unbase32(proof) == expected, "the key file is mistyped")
            self.key = self.unwrap(json.loads(self.read(f"keys/{key_id}")), unbase32(secret), root_bytes)
        digests = hkdf(self.key, b"", b"pgrecall repository digests")
        self.keys = Keys(self.suite, "", digests, {(REPOSITORY, 0): self.key})
        if self.suite != 0:
            log = self.document(self.keys, max(self.names("keys/log/")), KEY_LOG)
            check(any(key["id"] == key_id for key in log["living"]), "the key was removed")
        kept = (n.split("/")[1] for n in self.names("domains/") if n.endswith("/keys/" + "0" * 16))  # else shredded
        self.domains = {name: self.domain_keys(name) for name in kept}
    def read(self, name):
        return (self.path / name).read_bytes()
    def names(self, prefix):
        return sorted(str(f.relative_to(self.path)) for f in (self.path / prefix).rglob("*") if f.is_file())
    def document(self, keys, name, kind):
        return Object(keys, name, self.read(name), kind).document()
    def unwrap(self, wrap, secret, root_bytes):
        check(wrap["version"] == 1 and wrap["method"] == {"kind": "key-file"}, "the wrap is no key file's")
        check(wrap["root_sha256"] == hashlib.sha256(root_bytes).hexdigest(), "the wrap is another root's")
        opened = json.dumps(wrap | {"nonce": "", "wrapped": ""}, separators=(",", ":"), ensure_ascii=False)
        key = hkdf(secret, bytes.fromhex(wrap["salt"]), b"pgrecall wrap")
        return AESGCM(key).decrypt(bytes.fromhex(wrap["nonce"]), bytes.fromhex(wrap["wrapped"]), opened.encode())
    def domain_keys(self, domain):
        classes = {}
        for name in self.names(f"domains/{domain}/keys/"):
            body = self.document(self.keys, name, DOMAIN_KEYS)
            check(int(name.split("/")[-1], 16) == body["epoch"], f"{name}: another epoch's keys")
            classes |= {(k, body["epoch"]): bytes.fromhex(body[m]) for k, m in ((DATA, "data_key"), (META, "meta_key"))}
        return Keys(self.suite, domain, bytes.fromhex(body["id_key"]), classes)  # names rise with epochs
    def backups(self):
        """Every backup that exists, with its domain."""
        for domain, keys in self.domains.items():
            names, log = self.names(f"domains/{domain}/backups/"), self.names(f"domains/{domain}/expired/")
            expired = self.document(keys, log[-1], EXPIRED)["backups"] if log else []
            for name in names:
                cluster, lineage, backup = name.split("/")[3:]
                data = self.read(name)
                if backup not in expired and data[10] == MANIFEST:
                    found = Object(keys, name, data, MANIFEST).document()
                    same = (found["cluster"], found["lineage"], found["backup"]) == (cluster, lineage, backup)
                    check(same, f"{name} is the manifest of another backup")
                    yield domain, found
    def index(self, domain):
        """Chunk id -> place, from every index object, as far as the packs are there and the chunks sound."""
        keys, places, damaged = self.domains[domain], {}, set()
        sizes = {unbase32(n.split("/")[-1]): (n, len(self.read(n))) for n in self.names(f"domains/{domain}/packs/")}
        for name in self.names(f"domains/{domain}/damaged/"):
            for bad in self.document(keys, name, DAMAGE)["chunks"]:
                damaged.add((unbase32(bad["pack"]), bytes.fromhex(bad["chunk"])))
        for name in self.names(f"domains/{domain}/index/"):
            index = Object(keys, name, self.read(name), INDEX)
            head, *blocks = index.frames()
            reader, packs = Reader(index.verified(head)), []
            for _ in range(reader.number("I")):
                pack, size, kind, suite, method, key_class, field, epoch, _, salt = reader.unpack("16sQBBBBHII32s")
                reader.take(field)
                pack_name, found = sizes.get(pack, ("", None))
                sealing = Sealing(keys, pack_name, kind, suite, method, epoch, salt)
                packs.append((pack, sealing, key_class) if size == found else None)
            for row in struct.iter_unpack("<32sIIIIIQ", b"".join(blocks)):
                chunk, pack = row[0], packs[row[1]]
                if pack and (pack[0], chunk) not in damaged:
                    places[chunk] = (pack, *row[2:6])
        return places
    def chunk(self, keys, places, chunk_id, plain_len):
        (_, sealing, key_class), number, offset, sealed_len, _ = places[chunk_id]
        reader = Reader(self.read(sealing.name)[offset:])
        plain = sealing.open(reader, number, 0, key_class, chunk=chunk_id)
        check(reader.at == sealed_len + 4 and len(plain) == plain_len, f"{sealing.name}: lengths differ")
        check(keys.chunk_id(plain) == chunk_id, f"{sealing.name}: chunk {chunk_id.hex()} is another one")
        return plain
    def pieces(self, reader, keys, places):
        """The contents of the file whose pieces the reader stands at."""
        contents = b""
        for _ in range(reader.varint()):
            length, kind = reader.varint(), reader.number("B")
            check(kind < 3, f"a piece of kind {kind}")
            data = reader.string() if kind == 1 else b""
            if kind == 2:
                data = self.chunk(keys, places, reader.take(32), reader.varint())
            piece = self.mapped(Reader(data), keys, places) if kind else bytes(length)
            check(len(piece) == length, "a map describes another number of bytes than its piece has")
            contents += piece
        return contents
    def mapped(self, reader, keys, places):
        check(reader.varint() == 1, "a file map of another version")
        page_size, contents, chunks = reader.varint(), b"", [b""]
        for _ in range(reader.varint()):
            reader.take(32), reader.varint()
        for _ in range(reader.varint()):
            chunk_id, length, source = reader.take(32), reader.varint(), reader.varint()
            source > 1 and reader.varint()
            source == 1 and reader.take(8 * -(-length // page_size))
            chunks.append(self.chunk(keys, places, chunk_id, length))
        for _ in range(reader.varint()):
            length, number = reader.varint(), reader.varint()
            offset = reader.varint() if number else 0
            part = chunks[number][offset : offset + length] if number else bytes(length)
            check(len(part) == length, "an extent outside of its chunk")
            contents += part
        reader.end()
        return contents
    def extract(self, domain, manifest, target):
        keys, places, before = self.domains[domain], self.index(domain), b""
        for table in manifest["tables"]:
            reader = Reader(self.chunk(keys, places, bytes.fromhex(table["id"]), table["plain_len"]))
            check(reader.number("B") == 1, "a file table of another version")
            count, path = reader.varint(), b""
            check(count == table["entries"], "a file table of another number of entries")
            for _ in range(count):
                path = path[: reader.varint()] + reader.string()
                parts = path.split(b"/")
                check(path > before and not {b"", b".", b".."} & set(parts) and b"\0" not in path, f"path {path}")
                mode, _, _, _ = reader.varint(), reader.varint(), reader.varint(), reader.number("q")
                kind, place, before = reader.number("B"), target.joinpath(*(p.decode() for p in parts)), path
                check(1 <= kind <= 4, f"an entry of kind {kind}")
                (place if kind == 1 else place.parent).mkdir(parents=True, exist_ok=True)
                if kind >= 3:  # where links and outside files lead is the source's business: here it becomes text
                    place.with_name(place.name + ".link").write_bytes(reader.string())
                if kind in (2, 4):
                    place.write_bytes(self.pieces(reader, keys, places))
                    place.chmod(mode & 0o777)
            reader.end()
    def wal(self, cluster, file_name):
        names, ends = self.names(f"clusters/{cluster}/"), (f"/{file_name}", f"/{file_name}.resolved")
        found = {name.removesuffix(".resolved") for name in names if name.endswith(ends)}
        check(len(found) == 1, f"{len(found)} files are called {file_name}")
        name = file = found.pop()
        for keys in self.domains.values():
            try:
                self.document(keys, "/".join(file.split("/")[:3]) + "/identity", IDENTITY)
            except (Exception, Damaged):
                continue  # another domain's cluster
            if f"{file}.resolved" in names:  # two contents: a person has said which one holds
                name = self.document(keys, f"{file}.resolved", SETTLED)["object"]
                check(name.startswith(f"{file}."), f"the settlement of {file} names {name}")
            return Object(keys, name, self.read(name), ARCHIVE).archived_file()
        raise Damaged(f"the identity of the cluster of {file} opens in no domain")

if __name__ == "__main__":
    path, *rest = sys.argv[1:]
    key = (rest.pop(0), rest.pop(0))[1] if rest[:1] == ["--key"] else None
    repository = Repository(path, key)
    match rest:
        case ["list"]:
            for _, found in repository.backups():
                print(found["backup"], found["cluster"], found["lineage"], found["entries"], found["bytes"])
        case ["backup", backup, directory]:
            wanted = [found for found in repository.backups() if found[1]["backup"] == backup]
            check(len(wanted) == 1, f"there is no backup {backup}")
            repository.extract(*wanted[0], pathlib.Path(directory))
        case ["wal", cluster, file_name, output]:
            pathlib.Path(output).write_bytes(repository.wal(cluster, file_name))
        case _:
            sys.exit(__doc__)
