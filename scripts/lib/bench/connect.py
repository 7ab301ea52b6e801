"""Connecting through the session module against the same sshd without it.

Two sshds of root's with UsePAM yes, which differ in the module's two lines and in what the Match
block allows; one pod, which runs already, behind both. What is timed is a whole connection: key
exchange, login, `true` in the pod, and the end. A third sshd has no forced command.

Run by root in a network and mount namespace of its own, see scripts/bench.
"""

import os
import pathlib
import pwd
import signal
import subprocess
import sys
import time

import common

OUT = pathlib.Path(sys.argv[1])
STAGE = pathlib.Path(os.environ["BENCH_STAGE"])
USER = pwd.getpwnam(os.environ["BENCH_USER"])
IMAGE = "podspawn-test/busybox:latest"
ROUNDS = int(os.environ.get("ROUNDS") or 40)
PODSPAWN = f"{STAGE}/bin/podspawn --config {OUT}/config.yaml"
MODULE = f"{STAGE}/bin/pam_podspawn.so group={USER.pw_name} helper={STAGE}/bin/podspawn config={OUT}/config.yaml"
START = (
    'mount --bind "$1/pam" /etc/pam.d/sshd && exec "$2" -D -e -f "$1/sshd_config" 2>"$1/log"'
)


class RootSshd:
    """A real sshd of root's with a PAM configuration of its own."""

    def __init__(self, name, port, match, module):
        self.dir, self.port = OUT / name, port
        self.dir.mkdir()
        for key in ("host_key", "client_key"):
            common.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.dir / key])
        (self.dir / "authorized_keys").write_bytes((self.dir / "client_key.pub").read_bytes())
        key = (self.dir / "host_key.pub").read_text()
        (self.dir / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
        auth, session = (f"auth optional {MODULE}\n", f"session required {MODULE}\n") if module else ("", "")
        stack = "@include common-auth\n@include common-account\n@include common-session\n"
        (self.dir / "pam").write_text(auth + stack + session)
        text = (STAGE / "lib/sshd_config.in").read_text().replace("UsePAM no", "UsePAM yes")
        text += (STAGE / "lib" / match).read_text() if match else ""
        for mark, value in {"PORT": port, "DIR": self.dir, "SETTINGS": "", "FORCE": PODSPAWN + " spawn"}.items():
            text = text.replace(f"@{mark}@", str(value))
        (self.dir / "sshd_config").write_text(text)
        sshd = "/usr/sbin/sshd"
        start = ["unshare", "--mount", "--propagation", "private", "sh", "-c", START, "-", self.dir, sshd]
        self.daemon = subprocess.Popen(start, stdin=subprocess.DEVNULL)
        self.ssh = [
            "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
            "-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={self.dir}/known_hosts", "-o", "ConnectTimeout=10",
            "-i", f"{self.dir}/client_key", "-p", str(port), f"{USER.pw_name}@127.0.0.1", "true",
        ]
        for _ in range(200):
            if (self.dir / "sshd.pid").exists():
                return
            time.sleep(0.02)

    def connect(self):
        return common.run(self.ssh)

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()


def end_pods():
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == USER.pw_uid:
                if (entry / "comm").read_text().strip() == "podspawn-pod":
                    os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            pass


def main():
    OUT.chmod(0o755)
    run = pathlib.Path(f"/run/user/{USER.pw_uid}")
    run.mkdir(parents=True, mode=0o700)
    os.chown(run, USER.pw_uid, USER.pw_gid)
    store = OUT / "store"
    store.mkdir(mode=0o700)
    os.chown(store, USER.pw_uid, USER.pw_gid)
    (OUT / "config.yaml").write_text(
        f"defaults: {{image: '{IMAGE}'}}\nsession: {{grace_period: 600s}}\nnetwork: none\nstorage: {{root: {store}}}\n"
    )
    as_user = ["setpriv", "--reuid", USER.pw_name, "--regid", str(USER.pw_gid), "--init-groups"]
    clean = ["env", "-i", f"HOME={USER.pw_dir}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    common.run([*as_user, *clean, *PODSPAWN.split(), "load", "--quiet", STAGE / "images/busybox"])
    hosts = {
        "with": RootSshd("with", 2201, "sshd_match_module.in", True),
        "without": RootSshd("without", 2202, "sshd_match.in", False),
        "plain": RootSshd("plain", 2203, None, False),
    }
    report = common.Report("connect")
    try:
        contestants = {name: host.connect for name, host in hosts.items()}
        times = common.interleaved(contestants, ROUNDS, warm_up=3)
        milli = {name: [t * 1000 for t in list_] for name, list_ in times.items()}
        for name, what in (("plain", "plain sshd"), ("without", "podspawn"), ("with", "podspawn, session module")):
            report.add(f"connect and true, {what}", common.median(milli[name]), "ms", spread=milli[name])
        added = common.paired(milli["with"], milli["without"], lambda a, b: a - b)
        report.add("added by the session module", added, "ms", peer="podspawn without it")
        ratio = common.paired(milli["with"], milli["without"], lambda a, b: a / b)
        report.add("with / without the session module", ratio, "ratio", peer="podspawn without it")
    finally:
        end_pods()
        for host in hosts.values():
            host.close()
    report.write(OUT)


main()
