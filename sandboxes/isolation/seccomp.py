"""The system-call filter of a box: an allow-list as BPF bytes, built without a library.

What is not listed answers ENOSYS, so that a library falls back to an older call; what is known to be dangerous answers
EPERM; a call through another architecture's table ends the process. The numbers are those of x86_64.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ALLOWED", "ARGUMENTS", "NEW_NAMESPACES", "REFUSED", "Argument", "build"]

_NAMES = """
0 read|1 write|2 open|3 close|4 stat|5 fstat|6 lstat|7 poll|8 lseek|9 mmap|10 mprotect|11 munmap|12 brk
13 rt_sigaction|14 rt_sigprocmask|15 rt_sigreturn|17 pread64|18 pwrite64|19 readv|20 writev|21 access|22 pipe|23 select
24 sched_yield|25 mremap|26 msync|27 mincore|28 madvise|29 shmget|30 shmat|31 shmctl|32 dup|33 dup2|34 pause
35 nanosleep|36 getitimer|37 alarm|38 setitimer|39 getpid|40 sendfile|42 connect|43 accept|44 sendto|45 recvfrom
46 sendmsg|47 recvmsg|48 shutdown|49 bind|50 listen|51 getsockname|52 getpeername|53 socketpair|54 setsockopt
55 getsockopt|57 fork|58 vfork|59 execve|60 exit|61 wait4|62 kill|63 uname|64 semget|65 semop|66 semctl|67 shmdt
68 msgget|69 msgsnd|70 msgrcv|71 msgctl|72 fcntl|73 flock|74 fsync|75 fdatasync|76 truncate|77 ftruncate|78 getdents
79 getcwd|80 chdir|81 fchdir|82 rename|83 mkdir|84 rmdir|85 creat|86 link|87 unlink|88 symlink|89 readlink|90 chmod
91 fchmod|92 chown|93 fchown|94 lchown|95 umask|96 gettimeofday|97 getrlimit|98 getrusage|99 sysinfo|100 times
102 getuid|104 getgid|105 setuid|106 setgid|107 geteuid|108 getegid|109 setpgid|110 getppid|111 getpgrp|112 setsid
113 setreuid
114 setregid|115 getgroups|116 setgroups|117 setresuid|118 getresuid|119 setresgid|120 getresgid|121 getpgid
122 setfsuid|123 setfsgid|124 getsid|125 capget|126 capset|127 rt_sigpending|128 rt_sigtimedwait|129 rt_sigqueueinfo
130 rt_sigsuspend|131 sigaltstack|132 utime|133 mknod|137 statfs|138 fstatfs|140 getpriority|141 setpriority
143 sched_getparam|145 sched_getscheduler|146 sched_get_priority_max|147 sched_get_priority_min
148 sched_rr_get_interval|149 mlock|150 munlock|151 mlockall|152 munlockall|158 arch_prctl|160 setrlimit|162 sync
186 gettid|187 readahead|191 getxattr|192 lgetxattr|193 fgetxattr|194 listxattr|195 llistxattr|196 flistxattr
200 tkill|201 time|202 futex|203 sched_setaffinity|204 sched_getaffinity|213 epoll_create|217 getdents64
218 set_tid_address|219 restart_syscall|220 semtimedop|221 fadvise64|222 timer_create|223 timer_settime
224 timer_gettime|225 timer_getoverrun|226 timer_delete|228 clock_gettime|229 clock_getres|230 clock_nanosleep
231 exit_group|232 epoll_wait|233 epoll_ctl|234 tgkill|235 utimes|240 mq_open|241 mq_unlink|242 mq_timedsend
243 mq_timedreceive|244 mq_notify|245 mq_getsetattr|247 waitid|252 ioprio_get|253 inotify_init|254 inotify_add_watch
255 inotify_rm_watch|257 openat|258 mkdirat|259 mknodat|260 fchownat|261 futimesat|262 newfstatat|263 unlinkat
264 renameat|265 linkat|266 symlinkat|267 readlinkat|268 fchmodat|269 faccessat|270 pselect6|271 ppoll
273 set_robust_list|274 get_robust_list|275 splice|276 tee|277 sync_file_range|280 utimensat|281 epoll_pwait
282 signalfd|283 timerfd_create|284 eventfd|285 fallocate|286 timerfd_settime|287 timerfd_gettime|288 accept4
289 signalfd4|290 eventfd2|291 epoll_create1|292 dup3|293 pipe2|294 inotify_init1|295 preadv|296 pwritev
297 rt_tgsigqueueinfo|299 recvmmsg|306 syncfs|307 sendmmsg|309 getcpu|316 renameat2|318 getrandom|319 memfd_create
322 execveat|324 membarrier|325 mlock2|326 copy_file_range|327 preadv2|328 pwritev2|332 statx|334 rseq
424 pidfd_send_signal|434 pidfd_open|436 close_range|437 openat2|439 faccessat2|441 epoll_pwait2|449 futex_waitv
452 fchmodat2
"""
_DANGEROUS = """
101 ptrace|103 syslog|134 uselib|135 personality|136 ustat|139 sysfs|142 sched_setparam|144 sched_setscheduler
153 vhangup|154 modify_ldt|155 pivot_root|156 _sysctl|159 adjtimex|161 chroot|163 acct|164 settimeofday|165 mount
166 umount2|167 swapon|168 swapoff|169 reboot|170 sethostname|171 setdomainname|172 iopl|173 ioperm|174 create_module
175 init_module|176 delete_module|177 get_kernel_syms|178 query_module|179 quotactl|180 nfsservctl|188 setxattr
189 lsetxattr|190 fsetxattr|212 lookup_dcookie|227 clock_settime|237 mbind|238 set_mempolicy|239 get_mempolicy
246 kexec_load|248 add_key|249 request_key|250 keyctl|251 ioprio_set|256 migrate_pages|272 unshare|278 vmsplice
279 move_pages|298 perf_event_open|300 fanotify_init|301 fanotify_mark|303 name_to_handle_at|304 open_by_handle_at
305 clock_adjtime|308 setns|310 process_vm_readv|311 process_vm_writev|312 kcmp|313 finit_module|314 sched_setattr
317 seccomp|320 kexec_file_load|321 bpf|323 userfaultfd|428 open_tree|429 move_mount|430 fsopen|431 fsconfig
432 fsmount|433 fspick|438 pidfd_getfd|440 process_madvise|442 mount_setattr|443 quotactl_fd
"""

_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16
NEW_NAMESPACES = 0x7E020080
"""Every CLONE_NEW* flag, CLONE_NEWTIME included."""
_CLONE_PARENT = 0x8000
_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET and AF_INET6 (which lead nowhere: the box's network namespace is empty). AF_VSOCK and AF_NETLINK
do not stop at a network namespace and are refused."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_PRCTL_REFUSED = (10, 22, 26, 28, 35, 47, 59, 62)
"""fsuid and keep-caps bits aside: SET_FPEMU, SET_SECCOMP, SET_TSC, SET_SECUREBITS, SET_MM, CAP_AMBIENT, a scheduler
core's cookie and syscall user dispatch stay shut."""

Code = tuple[tuple[int, int, int, int], ...]


def _table(text: str) -> dict[int, str]:
    pairs = (entry.split() for line in text.split("\n") for entry in line.split("|") if entry.strip())
    return {int(number): name for number, name in pairs}


ALLOWED: Mapping[int, str] = _table(_NAMES)
REFUSED: Mapping[int, str] = _table(_DANGEROUS)


def _give(action: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, action)


def _error(number: int) -> tuple[int, int, int, int]:
    return _give(_ERRNO | number)


def _argument(index: int) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, _ARGS + 8 * index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A call that one argument decides, by its low 32 bits: what the kernel itself looks at."""

    name: str
    index: int
    error: int
    """What it answers where it is refused."""
    only: tuple[int, ...] = ()
    """The values that are allowed."""
    never: tuple[int, ...] = ()
    """The values that are refused."""
    bits: int = 0
    """None of these may be set."""

    def code(self) -> Code:
        """The instructions that decide it; the call's number is known."""
        if self.bits:
            return (_argument(self.index), (_JUMP_SET, 0, 1, self.bits), _error(self.error), _give(_ALLOW))
        values = self.only or self.never
        tests = tuple((_JUMP_EQ, len(values) - at, 0, value) for at, value in enumerate(values))
        ends = _error(self.error), _give(_ALLOW)
        return (_argument(self.index), *tests, *(ends if self.only else reversed(ends)))


ARGUMENTS: Mapping[int, Argument] = {
    16: Argument(name="ioctl", index=1, never=(_TIOCSTI, _TIOCLINUX), error=errno.EPERM),
    41: Argument(name="socket", index=0, only=_FAMILIES, error=errno.EAFNOSUPPORT),
    56: Argument(name="clone", index=0, bits=NEW_NAMESPACES | _CLONE_PARENT, error=errno.EPERM),
    157: Argument(name="prctl", index=0, never=_PRCTL_REFUSED, error=errno.EPERM),
    302: Argument(name="prlimit64", index=0, only=(0,), error=errno.EPERM),
}


def _leaves() -> dict[int, Code]:
    """The code that decides each listed number."""
    leaves: dict[int, Code] = {number: (_give(_ALLOW),) for number in ALLOWED}
    leaves |= {number: (_error(errno.EPERM),) for number in REFUSED}
    leaves |= {number: argument.code() for number, argument in ARGUMENTS.items()}
    return leaves


def _intervals(leaves: Mapping[int, Code]) -> list[tuple[int, Code]]:
    """(first number, code) of each run of numbers that are decided alike, from 0 up; the gaps answer ENOSYS."""
    missing: Code = (_error(errno.ENOSYS),)
    runs: list[tuple[int, Code]] = [(0, leaves.get(0, missing))]
    for number in range(1, max(leaves) + 2):
        code = leaves.get(number, missing)
        if code != runs[-1][1]:
            runs.append((number, code))
    return runs


def _tree(runs: list[tuple[int, Code]]) -> Code:
    """A balanced search, so that loading the filter and a rare call cost a handful of instructions."""
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    low, high = _tree(runs[:middle]), _tree(runs[middle:])
    if len(low) <= 255:
        return ((_JUMP_GE, len(low), 0, runs[middle][0]), *low, *high)
    return ((_JUMP_GE, 0, 1, runs[middle][0]), (0x05, 0, 0, len(low)), *low, *high)


def build() -> bytes:
    """The filter of a box on x86_64."""
    head: Code = (
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQ, 1, 0, _ARCH_X86_64),
        _give(_KILL),
        (_LOAD, 0, 0, _NR),
        (_JUMP_GE, 0, 1, _X32_BIT),
        _error(errno.EPERM),
    )
    return b"".join(struct.pack("=HBBI", *line) for line in (*head, *_tree(_intervals(_leaves()))))
