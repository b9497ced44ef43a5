"""The system calls a Python program may make, as a filter for seccomp.

An allow-list: whatever is not named fails with EPERM, so a program sees `PermissionError`. What
computing in one process needs is there, with files in a folder, threads, pipes and `asyncio`. What
is not: sockets, other programs, mounts, namespaces, tracing, keys, io_uring, System V memory.

libseccomp knows the numbers of each architecture and refuses calls of another one (32 bit, x32).
"""

import ctypes
import errno
import os
from functools import cache

from tutelage.rewards.sandbox.result import SandboxUnavailable

__all__ = ["ALLOWED", "compile_filter"]

ALLOWED = {
    "memory": "brk madvise mmap mprotect mremap msync munmap membarrier",
    "files": "access chdir chmod close close_range copy_file_range creat dup dup2 dup3 faccessat "
    "faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fcntl fdatasync flock fstat fstatfs "
    "fsync ftruncate futimesat getcwd getdents getdents64 link linkat lseek lstat mkdir mkdirat "
    "newfstatat open openat pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readlink "
    "readlinkat readv rename renameat renameat2 rmdir sendfile stat statfs statx symlink symlinkat "
    "truncate umask unlink unlinkat utime utimensat utimes write writev",
    "waiting": "epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd "
    "eventfd2 pipe pipe2 poll ppoll pselect6 select pause",
    "time": "alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep "
    "setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_settime times",
    "processes": "exit exit_group fork futex get_robust_list getegid geteuid getgid getgroups "
    "getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid "
    "gettid getuid kill rseq restart_syscall sched_get_priority_max sched_get_priority_min "
    "sched_getaffinity sched_getparam sched_getscheduler sched_yield set_robust_list "
    "set_tid_address setpgid setsid sigaltstack tgkill tkill vfork wait4 waitid "
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
    "rt_sigtimedwait",
    "socket pairs": "recvfrom sendto shutdown",
    "the machine": "arch_prctl getcpu getrandom sysinfo uname",
}
"""Calls that are allowed with any arguments, by what they are for."""

_CLONE_NEW_NAMESPACE = 0x7E02_0080
_AF_UNIX = 1
_IOCTLS = {
    "TCGETS": 0x5401,
    "TIOCGWINSZ": 0x5413,
    "FIONREAD": 0x541B,
    "FIONBIO": 0x5421,
    "FIOCLEX": 0x5451,
}

_EQUAL, _MASKED_EQUAL = 4, 7
_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000
_LIBRARY = "libseccomp.so.2"


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` of seccomp.h."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@cache
def compile_filter() -> bytes:
    """The filter as instructions for this machine's kernel and architecture.

    Raises:
        SandboxUnavailable: libseccomp is not installed or refuses a rule.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise SandboxUnavailable(
            "seccomp filter", str(error), "Install libseccomp (Debian: libseccomp2)."
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | errno.EPERM)))
    try:
        _add_rules(library, context)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add_rules(library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
    def rule(name: str, *comparisons: _Comparison, action: int = _ALLOW) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        wanted = (_Comparison * len(comparisons))(*comparisons)
        failed = library.seccomp_rule_add_array(
            context, ctypes.c_uint32(action), number, ctypes.c_uint(len(comparisons)), wanted
        )
        # A call this architecture never had is left out: it cannot be made there.
        if failed and number >= 0:
            raise SandboxUnavailable(
                "seccomp filter", f"{name}: error {failed}", "Update libseccomp."
            )

    for names in ALLOWED.values():
        for name in names.split():
            rule(name)
    rule("clone", _Comparison(0, _MASKED_EQUAL, _CLONE_NEW_NAMESPACE, 0))
    # Its flags lie in memory, where a filter cannot look. The C library then takes clone.
    rule("clone3", action=_ERRNO | errno.ENOSYS)
    rule("socketpair", _Comparison(0, _EQUAL, _AF_UNIX, 0))
    # Limits can be read, not set.
    rule("prlimit64", _Comparison(2, _EQUAL, 0, 0))
    for request in _IOCTLS.values():
        rule("ioctl", _Comparison(1, _EQUAL, request, 0))


def _export(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    descriptor = os.memfd_create("filter")
    try:
        if library.seccomp_export_bpf(context, descriptor):
            raise SandboxUnavailable(
                "seccomp filter", "libseccomp exports no program", "Update libseccomp."
            )
        return os.pread(descriptor, 1 << 16, 0)
    finally:
        os.close(descriptor)
