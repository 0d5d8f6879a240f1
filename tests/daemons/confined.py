"""Runs a command as systemd would with the unit of a program, without cgroups: same user, capabilities and filters.

    python -m tests.daemons.confined PROGRAM DIRECTORY COMMAND...

DIRECTORY stands for those that the unit has systemd make, and is the only one that can be written to. The process has
its own mount namespace with a BPF file system that, as systemd's, only root may enter.
"""

import configparser
import ctypes
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from lbmux.linux.capabilities import Capability, with_only

USER = "daemon"
CLONE_NEWNS, PR_SET_KEEPCAPS = 0x20000, 8
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM)
EQUAL = 4  # SCMP_CMP_EQ
BPF_FILE_SYSTEM = "/sys/fs/bpf"
_libc = ctypes.CDLL(None, use_errno=True)


class Compared(ctypes.Structure):
    """struct scmp_arg_cmp: one argument of a system call has a value."""

    _fields_ = (
        ("argument", ctypes.c_uint), ("compare", ctypes.c_int), ("value", ctypes.c_uint64), ("unused", ctypes.c_uint64)
    )  # fmt: skip


def unit(program: str) -> configparser.SectionProxy:
    """The section [Service] of a program's unit."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(files("lbmux").joinpath("units", f"lbmux-{program}.service").read_text())
    return parsed["Service"]


def mount(source: str, target: str, kind: str = "none", flags: int = 0, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def mount_file_systems(directory: str) -> None:
    """A private bpffs, an interpreter that the user can reach, and nothing to write to but ``directory``."""
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("bpf", BPF_FILE_SYSTEM, "bpf", data="mode=0700")
    home, kept = Path.home(), directory + ".interpreter"
    if sys.base_prefix.startswith(f"{home}/"):
        Path(kept).mkdir(exist_ok=True)
        mount(sys.base_prefix, kept, flags=MS_BIND)
        mount("none", str(home), "tmpfs", data="mode=755")
        Path(sys.base_prefix).mkdir(parents=True)
        mount(kept, sys.base_prefix, flags=MS_BIND)
    mount("none", "/dev/net", "tmpfs", data="mode=755")
    os.mknod("/dev/net/tun", stat.S_IFCHR | 0o666, os.makedev(10, 200))
    Path("/dev/net/tun").chmod(0o666)  # as udev's rules set it
    mount(directory, directory, flags=MS_BIND)
    mount("none", "/", flags=MS_REMOUNT | MS_BIND | MS_RDONLY)


def system_calls(words: str) -> Iterator[str]:
    """The system calls of a SystemCallFilter=, with systemd's own sets."""
    for word in words.split():
        if word.startswith("@"):
            listed = subprocess.run(
                ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
            ).stdout.splitlines()  # fmt: skip
            yield from system_calls(" ".join(line for line in listed[1:] if "#" not in line))
        else:
            yield word


def load_filter(calls: list[str], families: list[str]) -> None:
    """Refuse all other system calls (seccomp(2)), and sockets of other address families."""
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(REFUSE))
    for name in {*calls} - {"socket"}:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(context, ALLOW, number, 0)
    number = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in families:
        compared = Compared(0, EQUAL, getattr(socket, family), 0)
        seccomp.seccomp_rule_add_array(context, ALLOW, number, 1, ctypes.byref(compared))
    if seccomp.seccomp_load(context) != 0:
        raise OSError("seccomp_load")


def main(program: str, directory: str, *command: str) -> None:
    service, user = unit(program), pwd.getpwnam(USER)
    calls = list(system_calls(service["SystemCallFilter"]))
    mount_file_systems(directory)
    prepare = service["ExecStartPre"].removeprefix("-+/bin/sh -c ").strip("'")
    owner = f"{user.pw_uid}:{user.pw_gid}"
    subprocess.run(["/bin/sh", "-c", prepare.replace("lbmux:lbmux", owner)], check=True)
    capabilities = [Capability[name.removeprefix("CAP_")] for name in service["AmbientCapabilities"].split()]
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    with_only(capabilities)()
    os.umask(int(service["UMask"], 8))
    load_filter(calls, service["RestrictAddressFamilies"].split())
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
