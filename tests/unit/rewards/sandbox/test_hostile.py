"""Programs that reach for what is not theirs. Each prints whether it got there."""

import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.rewards.sandbox import SandboxStatus

PAGE = Path(__file__).resolve().parents[4] / "docs" / "sandbox.md"

# Attacks that do no harm where nothing stops them: run outside, they must succeed, or a refusal
# inside would show nothing.
SEEN_OUTSIDE = {
    "read the environment": "import os; return list(os.environ)",
    "read the parent's environment": """
        import os
        return open(f"/proc/{os.getppid()}/environ").read()
    """,
    "list processes": "import os; return [e for e in os.listdir('/proc') if e.isdigit()]",
    "signal another process": "import os; os.kill(os.getppid(), 0); return os.getppid()",
    "read /etc/passwd": "return open('/etc/passwd').read()",
    "read through ..": "return open('../' * 40 + 'etc/passwd').read()",
    "read through a symbolic link": """
        import os
        os.symlink("/etc/passwd", "link")
        return open("link").read()
    """,
    "read the folder of the run": "import os; return os.listdir(HERE)",
    "read home folders": "import os; return os.listdir('/home') or os.listdir('/root')",
    "open an internet socket": "import socket; return socket.socket()",
    "connect to a local port": """
        import socket
        return socket.create_connection(("127.0.0.1", PORT), timeout=2)
    """,
    "open a unix socket": "import socket; return socket.socket(socket.AF_UNIX)",
    "bind an abstract unix socket": """
        import socket
        socket.socket(socket.AF_UNIX).bind("\\0tutelage")
        return True
    """,
    "make memory that outlives the program": "import os; return os.memfd_create('kept')",
    "make System V memory": """
        import ctypes
        libc = ctypes.CDLL(None)
        memory = libc.shmget(0, 4096, 0o600)
        libc.shmctl(memory, 0, None)
        return memory >= 0
    """,
    "write to /dev/shm": """
        import os
        open("/dev/shm/tutelage-probe", "w").close()
        os.unlink("/dev/shm/tutelage-probe")
        return True
    """,
    "fork": """
        import os
        if not os.fork():
            os._exit(0)
        return os.wait()
    """,
    "start a thread": "import threading; threading.Thread(target=int).start(); return True",
    "start a shell": "import posix; return posix.system('true') == 0",
    "become another program": """
        import os, sys
        os.execv(sys.executable, [sys.executable, "-S", "-c", "print('reached:')"])
    """,
    "spawn a program": """
        import os, sys
        child = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
        return os.waitpid(child, 0)[1] == 0
    """,
    "call _posixsubprocess": """
        import subprocess, sys
        return subprocess.run([sys.executable, "-c", ""]).returncode == 0
    """,
    "read own memory through /proc": "return open('/proc/self/mem', 'rb')",
    "import tutelage": """
        import sys
        sys.path[:0] = [HERE + "/src", *SITE]
        import tutelage
        return True
    """,
    "import an installed package": "import sys; sys.path[:0] = SITE; import numpy; return numpy",
    "see the host's name": "import socket; return socket.gethostname() != 'sandbox'",
}

# Attacks that are not tried outside.
ONLY_INSIDE = {
    "write outside /tmp": """
        for place in ("", "/usr", "/dev", "/lib", "/usr/lib"):
            try:
                return open(place + "/planted", "w")
            except OSError:
                pass
    """,
    "change the standard library": "import os; return open(os.__file__, 'a')",
    "write to /proc": "return open('/proc/sys/kernel/core_pattern', 'w')",
    "hard link to the interpreter": "import os, sys; os.link(sys.executable, 'mine'); return True",
    "make a device": "import os, stat; os.mknod('disk', stat.S_IFBLK | 0o600, 0x0800); return True",
    "become root": "import os; os.setuid(0); return True",
    "run a program that is setuid": """
        import os
        open("mine", "w").write("#!/usr/bin/python3")
        os.chmod("mine", 0o4755)
        os.execv("mine", ["mine"])
    """,
    "leave through chroot": "import os; os.mkdir('d'); os.chroot('d'); return True",
    "raise its limits": """
        import resource
        resource.setrlimit(resource.RLIMIT_NPROC, (999, 999))
        return True
    """,
    "ask for the cloud's metadata": """
        import urllib.request
        return urllib.request.urlopen("http://169.254.169.254/", timeout=2).read()
    """,
    "resolve a name": "import socket; return socket.getaddrinfo('example.org', 80)",
    "use an inherited descriptor": """
        import os
        for descriptor in range(3, 64):
            try:
                os.fstat(descriptor)
                return descriptor
            except OSError:
                pass
    """,
    "kill everything in sight": """
        import os, signal
        os.kill(-1, signal.SIGKILL)
        return True
    """,
}

# Linux numbers of x86-64.
CALLS = {
    "trace a process": (101, 0, 0, 0, 0),
    "read another process's memory": (310, 1, 0, 0, 0, 0, 0),
    "make a user namespace": (272, 0x10000000),
    "make a user namespace by clone": (56, 0x10000011, 0, 0, 0, 0),
    "make a user namespace by clone3": (435, 0, 0),
    "enter a namespace": (308, 0, 0),
    "mount a file system": (165, 0, 0, 0, 0, 0),
    "open a mount": (428, 0, 0, 0),
    "use the keyring": (250, 0, 0, 0, 0, 0),
    "use io_uring": (425, 8, 0),
    "load a BPF program": (321, 0, 0, 0),
    "count kernel events": (298, 0, 0, 0, 0, 0),
    "handle page faults": (323, 0),
    "change the execution domain": (135, 0xFFFFFFFF),
    "take the filter off": (317, 0, 0, 0),
    "change how it may be dumped": (157, 4, 1, 0, 0, 0),
    "lower the limits of another process": (302, 1, 7, 1, 0),
    "open a file by handle": (304, 0, 0, 0),
    "load a kernel module": (313, 0, 0, 0),
    "restart the machine": (169, 0, 0, 0),
    "set the clock": (227, 0, 0),
    "set the host's name": (170, 0, 0),
    "watch the file system": (253,),
    "make a message queue": (240, 0, 0, 0, 0),
    "open a process by number": (434, 1, 0),
}
"""Raw system calls: number and arguments."""

FOREIGN = {
    "call through the x32 table": "return ctypes.CDLL(None).syscall(0x40000000 | 39) > 0",
    "call through the 32-bit table": """
        import mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0
    """,
}
"""Calls by another architecture's numbers; the kernel ends the program at once."""

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers are those of x86-64")


@pytest.fixture(scope="module")
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def places(port):
    """What the programs look for, as constants in front of them."""
    site = [path for path in sys.path if path.endswith("site-packages")]
    return f"HERE = {os.getcwd()!r}\nPORT = {port}\nSITE = {site!r}\n"


@pytest.mark.parametrize("attack", [*SEEN_OUTSIDE, *ONLY_INSIDE])
def test_program_is_refused(sandbox, written, places, attack):
    result = sandbox.run(places + written({**SEEN_OUTSIDE, **ONLY_INSIDE}[attack]))
    assert result.status is not SandboxStatus.ERROR, result.stderr
    assert result.stdout.startswith("refused:"), result


@pytest.mark.parametrize("attack", SEEN_OUTSIDE)
@pytest.mark.usefixtures("sandbox")  # where none can be made, as on macOS, /proc differs too
def test_outside_the_same_program_gets_there(written, places, tmp_path, attack):
    program = places + written(SEEN_OUTSIDE[attack])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"SECRET": "token", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.startswith("reached:"), done


@x86_64
@pytest.mark.parametrize("attack", CALLS)
def test_system_call_is_refused_by_the_filter(sandbox, written, attack):
    """EPERM, or ENOSYS where the C library is to take an older call: not the kernel's EINVAL."""
    body = f"""
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.syscall(*{CALLS[attack]!r})
        if done < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
            return False
        return done, ctypes.get_errno()
    """
    result = sandbox.run(written(body))
    assert result.stdout.startswith("refused:"), result


@x86_64
@pytest.mark.parametrize("attack", FOREIGN)
def test_calls_of_another_architecture_end_the_program(sandbox, written, attack):
    result = sandbox.run("import ctypes\n" + written(FOREIGN[attack]))
    assert result.status is SandboxStatus.SIGNALLED
    assert result.stdout == ""


def test_every_hostile_program_is_listed():
    """docs/sandbox.md says of each what it tries and which layer stops it."""
    page = PAGE.read_text("utf-8")
    listed = set(re.findall(r"^\| ([^|]+?) \|", page, flags=re.MULTILINE))
    programs = {*SEEN_OUTSIDE, *ONLY_INSIDE, *CALLS, *FOREIGN}
    assert not programs - listed
