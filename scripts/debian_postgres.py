#!/usr/bin/env python3
"""Unpacks a PostgreSQL that Debian has in its unstable or experimental suite, for the tests.

    debian_postgres.py MAJOR HOME

Its programs want a newer C library than this system's, so they get a loader and libraries of their own, and nothing
of the system is touched. The packages are those that the suites' signed lists name: the lists are checked with
Debian's archive keys (gpgv, debian-archive-keyring), each package by its SHA-256 in the list. A suite holds one
version only, so which one comes is not chosen here; it is written to HOME/.version.

    HOME/bin                programs: a link into lib, where they find their folders
    HOME/lib, HOME/share    what PostgreSQL's packages have below /usr
    HOME/system             the loader and the libraries
"""
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

ARCHIVE = os.environ.get("PGRECALL_TEST_DEBIAN", "http://deb.debian.org/debian")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# The first suite that has the major gives all packages of that source; all others are of the first one.
SUITES = ["unstable", "experimental"]


def get(path):
    with urllib.request.urlopen(f"{ARCHIVE}/{path}", timeout=60) as answer:
        return answer.read()


def checked(path, expected):
    """What the archive has at this path, if that is what was promised."""
    data = get(path)
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise SystemExit(f"{path}: expected SHA-256 {expected}, found {found}")
    return data


def suite_packages(suite, architecture, work):
    """The packages of a suite by name, each a dictionary of its fields."""
    signed, plain = work / "InRelease", work / "Release"
    signed.write_bytes(get(f"dists/{suite}/InRelease"))
    # The date until which a list is valid is not looked at: an old list names old packages, which do as well here.
    command = ["gpgv", "--quiet", "--keyring", KEYS, "--output", plain, signed]
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    name = f"main/binary-{architecture}/Packages.xz"
    line = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(name)}$", plain.read_text(), re.M)
    plain.unlink()
    if line is None:
        raise SystemExit(f"Debian's {suite} has nothing for {architecture}")
    text = lzma.decompress(checked(f"dists/{suite}/{name}", line[1])).decode()
    packages = {}
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.M))
        if "Package" in fields:
            packages[fields["Package"]] = fields
    return packages


def source(package):
    return package.get("Source", package["Package"]).split()[0]


def needed(major, suites):
    """The server, its programs and the libraries that they need."""
    own = next((suite for suite in suites if f"postgresql-{major}" in suite), None)
    if own is None:
        raise SystemExit(f"Debian has no postgresql-{major} in {' or '.join(SUITES)}")
    packages = dict(suites[0])
    packages.update((n, p) for n, p in own.items() if source(p) == f"postgresql-{major}")
    found, names = {}, [f"postgresql-{major}", f"postgresql-client-{major}"]
    while names:
        name = names.pop()
        if name in found or name not in packages:
            continue
        found[name] = packages[name]
        # Libraries only: scripts, locales, time zones and certificates are this system's, or not needed.
        depends = re.findall(r"(?:^|, )([a-z0-9.+-]+)", packages[name].get("Depends", ""))
        names += [other for other in depends if re.match(r"lib|zlib1g$", other)]
    return found.values()


def unpack(packages, into, work):
    for package in packages:
        deb = work / "package.deb"
        deb.write_bytes(checked(package["Filename"], package["SHA256"]))
        subprocess.run(["dpkg-deb", "--extract", deb, into], check=True)
        deb.unlink()


def arrange(major, files, home, final):
    """Moves what was unpacked to where it belongs, and tells each program which libraries are its own."""
    system = home / "system"
    system.mkdir()
    for top in ("lib", "usr/lib"):
        for library in files.glob(f"{top}/*-linux-gnu/*.so*"):
            # Links among them lead to names in the same folder.
            shutil.copy2(library, system / library.name, follow_symlinks=False)
    for name in ("lib", "share"):
        (home / name).mkdir()
        shutil.move(files / "usr" / name / "postgresql", home / name / "postgresql")
    (home / "bin").symlink_to(f"lib/postgresql/{major}/bin")
    loader = next(system.glob("ld-linux-*")).name
    for program in (home / "bin").resolve().iterdir():
        if program.is_symlink() or program.read_bytes()[:4] != b"\x7fELF":
            continue
        command = ["patchelf", "--set-interpreter", final / "system" / loader]
        command += ["--set-rpath", final / "system", "--force-rpath", program]
        subprocess.run(command, check=True)


def main():
    major, final = sys.argv[1], pathlib.Path(sys.argv[2]).absolute()
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    with tempfile.TemporaryDirectory(prefix=".fetch.", dir=final.parent) as folder:
        work = pathlib.Path(folder)
        suites = [suite_packages(suite, architecture, work) for suite in SUITES]
        packages = needed(major, suites)
        files, home = work / "files", work / "home"
        files.mkdir()
        home.mkdir(mode=0o755)
        unpack(packages, files, work)
        arrange(major, files, home, final)
        version = next(p["Version"] for p in packages if p["Package"] == f"postgresql-{major}")
        (home / ".version").write_text(version + "\n")
        shutil.rmtree(final, ignore_errors=True)
        home.rename(final)
    print(f"installed PostgreSQL {version} of Debian in {final}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}: {(error.stderr or b'').decode()}")
    except urllib.error.URLError as error:
        sys.exit(f"{ARCHIVE}: {error}")
