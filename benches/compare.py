#!/usr/bin/env python3
"""Times pgrecall beside pgBackRest and pg_basebackup on the same clusters, in turn (A B, B A, A B ...).

Called by benches/compare.sh, which builds, installs and drops privileges. For each step it measures
  wall     seconds from start to exit of the command
  cpu      seconds of the command and its children (user + system)
  server   seconds of PostgreSQL's own processes in that time
  archive  seconds of the archive_command that PostgreSQL ran in that time
  memory   peak of resident memory, summed over the command's processes, in MiB (shared pages counted once by PSS)
  stored   bytes by which the repository grew
prints medians and the ratio of pgrecall to the other (median of the ratios within each round), and writes JSON.
"""
import argparse
import json
import mmap
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


# ---------------------------------------------------------------------------------------------- processes

def stat_of(pid):
    """(parent, cpu seconds, cpu seconds of reaped children, name) of a process, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            text = f.read()
    except OSError:
        return None
    name = text[text.index("(") + 1:text.rindex(")")]
    fields = text[text.rindex(")") + 2:].split()
    own, reaped = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return int(fields[1]), own / TICK, reaped / TICK, name


def all_processes():
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = stat_of(int(entry))
            if stat:
                found[int(entry)] = stat
    return found


def tree(root, processes):
    children = {}
    for pid, (parent, *_rest) in processes.items():
        children.setdefault(parent, []).append(pid)
    todo, seen = [root], []
    while todo:
        pid = todo.pop()
        if pid in processes:
            seen.append(pid)
            todo.extend(children.get(pid, []))
    return seen


def pss_bytes(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class MemoryWatch(threading.Thread):
    """Samples the summed memory of a process tree until it ends."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self.root, self.peak, self.ended = root, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.05):
            total = sum(pss_bytes(pid) for pid in tree(self.root, all_processes()))
            self.peak = max(self.peak, total)


def run(command, env=None, cwd=None, log=None, watch=True, ok=(0,)):
    """Runs a command to its end: (wall seconds, cpu seconds, peak bytes)."""
    out = open(log, "ab") if log else subprocess.DEVNULL
    began = time.monotonic()
    child = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    memory = MemoryWatch(child.pid) if watch else None
    if memory:
        memory.start()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if memory:
        memory.ended.set()
        memory.join()
    if log:
        out.close()
    if child.returncode not in ok:
        tail = open(log, errors="replace").read()[-3000:] if log else ""
        sys.exit(f"{' '.join(command)} ended with {child.returncode}\n{tail}")
    # The kernel's own high-water mark catches a peak between two samples of a single process.
    peak = max(memory.peak if memory else 0, usage.ru_maxrss * 1024)
    return wall, usage.ru_utime + usage.ru_stime, peak


def bytes_below(path):
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                pass
    return total


# ---------------------------------------------------------------------------------------------- the server

class Cluster:
    """A throwaway server; the file `turn` says whose archive_command works."""

    def __init__(self, args, work, port):
        self.bin, self.work, self.port = args.postgres, work, port
        self.data, self.wal = f"{work}/data", f"{work}/segments"
        self.env = dict(os.environ, PGHOST=work, PGPORT=str(port), PGUSER="bench", PGDATABASE="postgres")
        self.tools = []

    def program(self, name):
        return f"{self.bin}/{name}"

    def create(self):
        os.makedirs(self.wal)
        self.turn("none")
        run([self.program("initdb"), "-D", self.data, "--username=bench", "--auth=trust", "--data-checksums",
             "--encoding=UTF8", "--locale=C"], log=f"{self.work}/initdb.log", watch=False)
        with open(f"{self.work}/pgbackrest-or-other.sh", "w") as f:
            f.write(f'#!/bin/sh\nexec "{self.work}/archive.$(cat "{self.work}/turn")" "$1"\n')
        self.archiver("none", "exit 0")
        self.archiver("keep", f'exec cp "$1" "{self.wal}/"')
        os.chmod(f"{self.work}/pgbackrest-or-other.sh", 0o755)
        with open(f"{self.data}/postgresql.conf", "a") as f:
            f.write(f"listen_addresses=''\nunix_socket_directories='{self.work}'\nport={self.port}\n"
                    "shared_buffers=512MB\nmax_wal_size=4GB\ncheckpoint_timeout=1h\nautovacuum=off\n"
                    f"archive_mode=on\narchive_command='{self.work}/pgbackrest-or-other.sh %p'\nwal_compression=off\n")
        self.start()

    def archiver(self, name, body):
        with open(f"{self.work}/archive.{name}", "w") as f:
            f.write(f"#!/bin/sh\n{body}\n")
        os.chmod(f"{self.work}/archive.{name}", 0o755)

    def turn(self, name):
        with open(f"{self.work}/turn.new", "w") as f:
            f.write(name)
        os.rename(f"{self.work}/turn.new", f"{self.work}/turn")

    def start(self):
        run([self.program("pg_ctl"), "-D", self.data, "-l", f"{self.work}/server.log", "-w", "-t", "120", "start"],
            log=f"{self.work}/pg_ctl.log", watch=False)
        with open(f"{self.data}/postmaster.pid") as f:
            self.pid = int(f.readline())

    def stop(self):
        subprocess.run([self.program("pg_ctl"), "-D", self.data, "-m", "immediate", "-w", "stop"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def sql(self, text):
        done = subprocess.run([self.program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text],
                              env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"psql: {done.stderr}\nin: {text[:300]}")
        return done.stdout.strip()

    def pgbench(self, *arguments):
        run([self.program("pgbench"), *arguments], env=self.env, log=f"{self.work}/pgbench.log", watch=False)

    def settle(self):
        """Nothing is left to archive or to write: what comes next is measured alone."""
        self.sql("CHECKPOINT")
        self.sql("SELECT pg_switch_wal()")
        last = self.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            ready = [n for n in os.listdir(f"{self.data}/pg_wal/archive_status") if n.endswith(".ready")]
            if not ready:
                break
            time.sleep(0.1)
        else:
            sys.exit(f"the archiver does not catch up before {last}")
        os.sync()

    def cpu(self):
        """(seconds of PostgreSQL's processes, seconds of what the archiver ran)."""
        processes = all_processes()
        server = archive = 0.0
        for pid in [p for p in tree(self.pid, processes)]:
            parent, own, reaped, name = processes[pid]
            is_server = pid == self.pid or parent == self.pid
            if not is_server:
                continue
            server += own
            if pid == self.pid:
                server += reaped
            else:
                archive += reaped
        return server, archive


ABSENT = "000000010000FFFF000000FF"
PGBENCH_FILL = None
MIXED = """
CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, device uuid NOT NULL, request uuid, kind text,
  body jsonb);
CREATE TABLE readings (sensor int, at timestamptz, temperature double precision, humidity real, flags int);
CREATE TABLE articles (id uuid PRIMARY KEY, title text, body text, tags text[]);
INSERT INTO events SELECT n, '2026-01-01'::timestamptz + n * interval '1.7 s',
  md5((n % 5000)::text)::uuid, gen_random_uuid(), (ARRAY['view','click','buy','refund','login'])[1 + n * 7 % 5],
  jsonb_build_object('user', n * 7919 % 100000, 'path', '/shop/' || n % 500 || '/item/' || n * 31 % 10000,
    'ms', (random() * 2000)::int, 'agent', 'Mozilla/5.0 (X11; Linux x86_64) build ' || n % 37, 'ok', n % 17 <> 0)
  FROM generate_series(1::bigint, 1500000) n;
INSERT INTO readings SELECT n % 200, '2026-01-01'::timestamptz + n / 200 * interval '10 s',
  20 + sin(n / 10000.0) * 8 + random(), 40 + (random() * 20)::int, n % 4 FROM generate_series(1, 6000000) n;
INSERT INTO articles SELECT gen_random_uuid(), 'On the matter of ' || n,
  (SELECT string_agg((ARRAY['the','quick','database','moves','every','page','of','a','relation','to','its',
     'archive','and','nobody','notices','until','morning','comes','with','questions'])[1 + (random() * 19)::int], ' ')
   FROM generate_series(1, 150 + n % 7) w WHERE n > 0), ARRAY['t' || n % 50, 't' || n % 11] FROM generate_series(1, 250000) n;
CREATE INDEX ON events (device, at);
CREATE INDEX ON events (request);
CREATE INDEX ON events USING gin (body jsonb_path_ops);
CREATE INDEX ON readings (sensor, at);
CREATE INDEX ON articles USING gin (tags);
VACUUM ANALYZE;
"""


def fill(cluster, dataset, scale):
    if dataset == "pgbench":
        cluster.pgbench("-i", "-q", "-s", str(scale))
    else:
        for statement in MIXED.split(";\n"):
            if statement.strip():
                cluster.sql(statement)
        cluster.pgbench("-i", "-q", "-s", "10")


# ---------------------------------------------------------------------------------------------- the tools

class PgRecall:
    name = "pgrecall"

    def __init__(self, args, cluster, encrypted):
        self.cluster, self.encrypted = cluster, encrypted
        self.home = f"{cluster.work}/pgrecall"
        self.repo, self.program = f"{self.home}/repo", args.pgrecall
        self.env = dict(cluster.env, PGRECALL_CONFIG=f"{self.home}/pgrecall.toml", PGRECALL_LOG_LEVEL="warn")
        self.log = f"{cluster.work}/pgrecall.log"
        cluster.archiver(self.name, f'PGRECALL_CONFIG="{self.home}/pgrecall.toml" exec "{self.program}" wal push "$1"')

    def fresh(self):
        shutil.rmtree(self.home, ignore_errors=True)
        os.makedirs(self.home)
        extra = [] if self.encrypted else ["--encryption", "none"]
        run([self.program, "init", "--repo", f"file://{self.repo}", "--cluster", "bench", "--pgdata",
             self.cluster.data, *extra], env=self.env, log=self.log)

    def full(self):
        return [self.program, "backup", "--fast-checkpoint"]

    incremental = full

    def restore(self, into):
        return [self.program, "restore", into, "--as", "copy", "--to-immediate"]

    def delta(self, into):
        return [*self.restore(into), "--delta"]

    def push(self, path):
        return [self.program, "wal", "push", path]

    def fetch(self, name, into):
        return [self.program, "wal", "fetch", name, into]

    def absent(self, into):
        """A segment that is not there: what a call costs before the first byte moves."""
        return [self.program, "wal", "fetch", ABSENT, f"{into}/none"]


class PgBackRest:
    name = "pgbackrest"

    def __init__(self, args, cluster, encrypted):
        self.cluster, self.encrypted = cluster, encrypted
        self.home = f"{cluster.work}/pgbackrest"
        self.repo, self.program = f"{self.home}/repo", args.pgbackrest
        self.config = f"{self.home}/pgbackrest.conf"
        self.env = dict(cluster.env)
        self.log = f"{cluster.work}/pgbackrest.log"
        self.base = [self.program, f"--config={self.config}", "--stanza=bench"]
        cluster.archiver(self.name, f'exec {" ".join(self.base)} archive-push "$1"')

    def fresh(self):
        shutil.rmtree(self.home, ignore_errors=True)
        for folder in ("repo", "lock", "log", "spool"):
            os.makedirs(f"{self.home}/{folder}")
        cipher = "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=benchmark-passphrase\n" if self.encrypted else ""
        with open(self.config, "w") as f:
            f.write(f"[global]\nrepo1-path={self.repo}\n{cipher}repo1-bundle=y\nrepo1-block=y\ncompress-type=zst\n"
                    f"compress-level=3\nprocess-max=2\nstart-fast=y\nlock-path={self.home}/lock\n"
                    f"log-path={self.home}/log\nspool-path={self.home}/spool\nlog-level-file=off\n"
                    f"log-level-console=warn\nrepo1-retention-full=9\n"
                    f"[bench]\npg1-path={self.cluster.data}\npg1-port={self.cluster.port}\n"
                    f"pg1-socket-path={self.cluster.work}\npg1-user=bench\n")
        run([*self.base, "stanza-create"], env=self.env, log=self.log)

    def full(self):
        return [*self.base, "--type=full", "backup"]

    def incremental(self):
        return [*self.base, "--type=incr", "backup"]

    def restore(self, into):
        return [*self.base, f"--pg1-path={into}", "--type=immediate", "restore"]

    def delta(self, into):
        return [*self.base, f"--pg1-path={into}", "--type=immediate", "--delta", "restore"]

    def push(self, path):
        return [*self.base, "archive-push", path]

    def fetch(self, name, into):
        return [*self.base, "archive-get", name, into]

    def absent(self, into):
        return [*self.base, "archive-get", ABSENT, f"{into}/none"]


# ---------------------------------------------------------------------------------------------- measuring

class Results:
    def __init__(self):
        self.rows = {}

    def add(self, step, tool, figures):
        self.rows.setdefault(step, {}).setdefault(tool, []).append(figures)
        shown = "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v:,}" for k, v in figures.items())
        print(f"  {step:<22} {tool:<12} {shown}", flush=True)

    def table(self):
        keys = ("wall", "cpu", "server", "archive", "memory", "stored")
        print(f"\n{'step':<22} {'tool':<14}" + "".join(f"{k:>12}" for k in keys))
        for step, tools in self.rows.items():
            for tool, runs in tools.items():
                line = f"{step:<22} {tool:<14}"
                for key in keys:
                    values = [r[key] for r in runs if key in r]
                    line += f"{statistics.median(values):>12.3f}" if values else f"{'':>12}"
                print(line)
            ours, theirs = tools.get("pgrecall"), tools.get("pgbackrest")
            if ours and theirs:
                line = f"{'':<22} {'ratio':<14}"
                for key in keys:
                    pairs = [a[key] / b[key] for a, b in zip(ours, theirs) if b.get(key)]
                    line += f"{statistics.median(pairs):>12.2f}" if pairs else f"{'':>12}"
                print(line)


def measured(cluster, tool, command, cwd=None):
    cluster.turn(tool.name)
    before, server = bytes_below(tool.repo), cluster.cpu()
    wall, cpu, peak = run(command, env=tool.env, cwd=cwd, log=tool.log)
    after = cluster.cpu()
    cluster.turn("none")
    return {"wall": wall, "cpu": cpu, "server": after[0] - server[0], "archive": after[1] - server[1],
            "memory": peak / 2**20, "stored": (bytes_below(tool.repo) - before) / 1e6}


def in_turn(tools, number):
    return tools if number % 2 == 0 else list(reversed(tools))


def settle_for(cluster, tool):
    cluster.settle()


def backups(cluster, tools, results, args, label):
    for number in range(args.rounds):
        for tool in in_turn(tools, number):
            tool.fresh()
            settle_for(cluster, tool)
            results.add(f"full{label}", tool.name, measured(cluster, tool, tool.full()))
        if "basebackup" in args.steps and not label:
            basebackup(cluster, results)
        for count in args.transactions:
            cluster.pgbench("-n", "-c", "2", "-t", str(count // 2))
            for tool in in_turn(tools, number):
                settle_for(cluster, tool)
                step = f"incremental {count}{label}"
                results.add(step, tool.name, measured(cluster, tool, tool.incremental()))
        restores(cluster, tools, results, number, label)


def restores(cluster, tools, results, number, label):
    for tool in in_turn(tools, number):
        into = f"{cluster.work}/restored"
        shutil.rmtree(into, ignore_errors=True)
        os.makedirs(into, mode=0o700)
        os.sync()
        results.add(f"restore{label}", tool.name, measured(cluster, tool, tool.restore(into)))
        damage(into)
        os.sync()
        results.add(f"delta restore{label}", tool.name, measured(cluster, tool, tool.delta(into)))
        shutil.rmtree(into)


def damage(into):
    """What a delta restore finds: one page in a hundred of each large file is other, a file is gone."""
    for folder, _, files in os.walk(f"{into}/base"):
        for name in sorted(files):
            path = os.path.join(folder, name)
            pages = os.path.getsize(path) // 8192
            if pages < 1000:
                continue
            with open(path, "r+b") as f:
                for page in range(0, pages, 100):
                    f.seek(page * 8192 + 4096)
                    f.write(b"\xa5" * 512)


def basebackup(cluster, results):
    into = f"{cluster.work}/basebackup"
    shutil.rmtree(into, ignore_errors=True)
    cluster.settle()
    cluster.turn("none")
    server = cluster.cpu()
    wall, cpu, peak = run([cluster.program("pg_basebackup"), "-D", into, "-c", "fast", "-X", "stream"],
                          env=cluster.env, log=f"{cluster.work}/basebackup.log")
    after = cluster.cpu()
    results.add("full", "pg_basebackup", {"wall": wall, "cpu": cpu, "server": after[0] - server[0],
                                          "memory": peak / 2**20, "stored": bytes_below(into) / 1e6})
    shutil.rmtree(into)


def collect_segments(cluster, count):
    cluster.turn("keep")
    while len(os.listdir(cluster.wal)) < count:
        cluster.pgbench("-n", "-c", "2", "-t", "20000")
        cluster.settle()
    cluster.turn("none")
    return sorted(n for n in os.listdir(cluster.wal) if len(n) == 24)[:count]


def small_files(cluster):
    """Histories of a line each: to push one costs what a push costs beside its bytes."""
    paths = [f"{cluster.work}/{timeline:08X}.history" for timeline in range(2, 22)]
    for path in paths:
        with open(path, "w") as f:
            f.write("1\t0/1000000\tno recovery target specified\n")
    return paths


def wal(cluster, tools, results, args, label):
    names = collect_segments(cluster, args.segments)
    into = f"{cluster.work}/fetched"
    histories = small_files(cluster)
    for number in range(args.rounds):
        for tool in in_turn(tools, number):
            tool.fresh()
            os.sync()
            before = bytes_below(tool.repo)
            figures = each(tool, cluster, [tool.push(f"{cluster.wal}/{n}") for n in names])
            figures["stored"] = (bytes_below(tool.repo) - before) / 1e6
            results.add(f"push, a segment{label}", tool.name, figures)
            shutil.rmtree(into, ignore_errors=True)
            os.makedirs(into)
            os.sync()
            figures = each(tool, cluster, [tool.fetch(n, f"{into}/{n}") for n in names])
            results.add(f"fetch, a segment{label}", tool.name, figures)
            results.add(f"a fetch of nothing{label}", tool.name, each(tool, cluster, [tool.absent(into)] * 20))
            small = [tool.push(path) for path in histories]
            results.add(f"a push of a history{label}", tool.name, each(tool, cluster, small))
            for name in names:
                # Whether a call did what it should shows here.
                if subprocess.run(["cmp", "-s", f"{into}/{name}", f"{cluster.wal}/{name}"], check=False).returncode:
                    sys.exit(f"{tool.name}: {name} came back with other bytes")


def each(tool, cluster, commands):
    """Means over many calls: seconds a call; the peak of any. 1 says that a file is not there."""
    walls, cpus, peaks = [], [], []
    for command in commands:
        wall, cpu, peak = run(command, env=tool.env, cwd=cluster.data, log=tool.log, watch=False, ok=(0, 1))
        walls.append(wall)
        cpus.append(cpu)
        peaks.append(peak)
    return {"wall": statistics.mean(walls), "cpu": statistics.mean(cpus), "memory": max(peaks) / 2**20}


def machine(args):
    """What the figures are of."""
    with open("/proc/cpuinfo") as f:
        models = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    said = {}
    for name, command in [("pgrecall", [args.pgrecall, "--version"]), ("pgbackrest", [args.pgbackrest, "version"]),
                          ("postgres", [f"{args.postgres}/postgres", "--version"])]:
        if command[0]:
            said[name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {"date": time.strftime("%Y-%m-%d"), "cpu": models[0] if models else "", "cores": len(models), **said}


def warm():
    """Touches most of the memory once: a virtual machine that was just started pays for the first use of each page,
    and whoever comes first in a round would pay for all."""
    with open("/proc/meminfo") as f:
        free = next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))
    block = b"\1" * (1 << 20)
    with mmap.mmap(-1, free * 3 // 4) as memory:
        for at in range(0, len(memory) - len(block), len(block)):
            memory[at:at + len(block)] = block


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pgrecall", required=True)
    parser.add_argument("--pgbackrest")
    parser.add_argument("--postgres", required=True, help="folder of PostgreSQL's programs")
    parser.add_argument("--work", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=int, default=100, help="pgbench's scale")
    parser.add_argument("--datasets", default="pgbench,mixed")
    parser.add_argument("--steps", default="backup,basebackup,wal")
    parser.add_argument("--encryption", default="on,off")
    parser.add_argument("--transactions", default="1000,40000")
    parser.add_argument("--segments", type=int, default=64)
    parser.add_argument("--json", default="-")
    args = parser.parse_args()
    args.transactions = [int(n) for n in args.transactions.split(",") if n]
    args.steps, report = args.steps.split(","), {"machine": machine(args), "datasets": {}}
    # In a process of its own: the peak of this one's memory counts as that of all that it starts.
    warming = multiprocessing.Process(target=warm)
    warming.start()
    warming.join()
    for number, dataset in enumerate(args.datasets.split(",")):
        work = f"{args.work}/{dataset}"
        os.makedirs(work)
        cluster, results = Cluster(args, work, 5600 + number), Results()
        try:
            cluster.create()
            fill(cluster, dataset, args.scale)
            size = bytes_below(cluster.data + "/base")
            print(f"\n== {dataset}: {size / 1e6:,.0f} MB in base/", flush=True)
            for encryption in args.encryption.split(","):
                label = "" if encryption == "on" else ", clear"
                tools = [PgRecall(args, cluster, encryption == "on")]
                if args.pgbackrest:
                    tools.append(PgBackRest(args, cluster, encryption == "on"))
                if "backup" in args.steps:
                    backups(cluster, tools, results, args, label)
                if "wal" in args.steps:
                    wal(cluster, tools, results, args, label)
        finally:
            cluster.stop()
        results.table()
        report["datasets"][dataset] = {"bytes": size, "scale": args.scale, "rounds": results.rows}
        shutil.rmtree(work)
    if args.json != "-":
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
