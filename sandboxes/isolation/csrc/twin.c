/* Makes workers out of a stopped process: a mold's new boxes and the copies of a live one are made alike.
 *
 * A twin shares the memory of a box's worker and nothing else: its rights, descriptors and namespaces are the mold's, it
 * lives outside the box, and it is held for ever in a ptrace stop, so it never runs the program that is there. A copy:
 *
 *     source twin --clone--> new twin (a copy of the memory) --enters the new box, clone(CLONE_VM)--> new worker
 *
 * Every call is put into the stopped process through its registers and made by one single step, over an instruction that
 * was looked at before: nobody who runs can change it, because the memory's only other owner is stopped as well and shares
 * no page with anybody. What a call needs in memory lies in a page that is made for it in the copy, before the copy runs.
 * Most calls are made by a few instructions of our own in that page, which stop the process again when they are done.
 * The mold calls this as a library; it has one thread, the only one that traces.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __x86_64__
#error "twins are made for x86_64"
#endif

enum { MOLD = 100, POST = 101, MOST_GROUPS = 8 };
/* Descriptors as they arrive in a new twin; the files of control groups follow. */
enum { CONTROL = 3, OUT, ERR, SPACE, GROUPS };

/* One call that a stopped process makes by itself. */
typedef struct {
    long number, arguments[5];
} Step;

enum { MOST_STEPS = 8 + MOST_GROUPS };

/* The page that is made for calls. */
typedef struct {
    Step steps[MOST_STEPS];
    unsigned char code[128];
    char zero[16];
    struct { unsigned short count; void *code; } program;
    struct msghdr message;
    struct iovec text;
    char byte[16];
    char control[CMSG_SPACE((4 + MOST_GROUPS) * sizeof(int))];
    unsigned char filter[40000];
} Scratch;

#define SPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)
#define OPTIONS                                                                                                        \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL)

typedef struct user_regs_struct Registers;

/* A worker as it was stopped: what the kernel gives back to a program that goes on. */
typedef struct {
    Registers general;
    uint64_t mask;
    size_t extended_size;
    unsigned char extended[16384];
} State;

/* What a mold knows of its seed, the stopped interpreter that every new box is a copy of. */
static struct {
    unsigned long instruction; /* address of the `syscall` it sits behind */
    unsigned long thread_id;   /* where the C library keeps the number of its thread */
    unsigned long message;
    int filtered; /* every process made of it has the filter from its birth */
    State state;
} seed;

static unsigned long thread_id_address;
static char reason[256];

const char *twin_error(void) { return reason; }

static int fail(const char *step) {
    snprintf(reason, sizeof reason, "%s: %s", step, strerror(errno));
    return -1;
}

static int refuse(const char *why) {
    snprintf(reason, sizeof reason, "%s", why);
    return -1;
}

/* ---- time: a hostile instruction may never come to an end, so no wait is longer than the operation's */

static volatile sig_atomic_t late;
static struct sigaction old_action;

static void on_alarm(int number) {
    (void)number;
    late = 1;
}

void twin_begin(int milliseconds) {
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval timer = {{0, 20000}, {milliseconds / 1000, milliseconds % 1000 * 1000}};
    late = 0;
    sigaction(SIGALRM, &action, &old_action);
    setitimer(ITIMER_REAL, &timer, NULL);
}

void twin_end(void) {
    struct itimerval none = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &none, NULL);
    sigaction(SIGALRM, &old_action, NULL);
}

static int wait_stop(pid_t pid, int *status) {
    for (;;) {
        if (late) {
            errno = ETIMEDOUT;
            return fail("a stopped process");
        }
        pid_t got = waitpid(pid, status, __WALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == pid && WIFSTOPPED(*status))
            return 0;
        return refuse("a stopped process ended");
    }
}

/* ---- one call in a stopped process */

/* The two bytes of `syscall`, seen now; nobody changes them while the memory's owners are stopped. */
static int check_instruction(pid_t pid) {
    unsigned char code[2];
    struct iovec here = {code, 2}, there = {(void *)seed.instruction, 2};
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) != 2 || code[0] != 0x0f || code[1] != 0x05)
        return refuse("the program changed the code that a copy starts from");
    return 0;
}

static long inject(pid_t pid, long number, const long arguments[6], pid_t *child) {
    Registers registers = seed.state.general;
    int status;
    registers.rip = seed.instruction;
    registers.rax = number;
    registers.orig_rax = -1;
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.r10 = arguments[3];
    registers.r8 = arguments[4];
    registers.r9 = arguments[5];
    if (ptrace(PTRACE_SETREGS, pid, 0, &registers) < 0)
        return fail("registers");
    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0) < 0) {
            fail("a call");
            goto kill;
        }
        if (wait_stop(pid, &status) < 0)
            goto kill;
        int event = status >> 16;
        if (event != PTRACE_EVENT_FORK && event != PTRACE_EVENT_CLONE && event != PTRACE_EVENT_VFORK)
            break;
        unsigned long made = 0;
        ptrace(PTRACE_GETEVENTMSG, pid, 0, &made);
        if (child != NULL)
            *child = made;
    }
    if (ptrace(PTRACE_GETREGS, pid, 0, &registers) < 0) {
        fail("a call's result");
        goto kill;
    }
    if (status >> 8 != SIGTRAP || registers.rip != seed.instruction + 2) {
        refuse("a stopped process did not stay stopped");
        goto kill;
    }
    if ((long)registers.rax < 0) {
        errno = -(long)registers.rax;
        snprintf(reason, sizeof reason, "call %ld of a copy: %s", number, strerror(errno));
        return -1;
    }
    return registers.rax;
kill:
    kill(pid, SIGKILL);
    return -1;
}

static int put(pid_t pid, unsigned long address, const void *data, size_t size) {
    struct iovec here = {(void *)data, size}, there = {(void *)address, size};
    return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)size ? 0 : fail("memory of a copy");
}

/* Makes the rbp calls that rbx points to, up to the first that fails, and stops; in no need of a stack. */
extern const unsigned char twin_code[], twin_code_end[];
__asm__(".pushsection .text\n"
        ".hidden twin_code, twin_code_end\n"
        ".globl twin_code, twin_code_end\n"
        "twin_code:\n"
        "    test %rbp, %rbp\n"
        "    jz 1f\n"
        "    mov (%rbx), %rax\n"
        "    mov 8(%rbx), %rdi\n"
        "    mov 16(%rbx), %rsi\n"
        "    mov 24(%rbx), %rdx\n"
        "    mov 32(%rbx), %r10\n"
        "    mov 40(%rbx), %r8\n"
        "    syscall\n"
        "    test %rax, %rax\n"
        "    js 1f\n"
        "    add $48, %rbx\n"
        "    dec %rbp\n"
        "    jmp twin_code\n"
        "1:  int3\n"
        "twin_code_end:\n"
        ".popsection\n");

/* Have a stopped process make these calls. Only in a memory whose every owner is stopped, and that nobody shares. */
static int run(pid_t pid, const Scratch *there, const Step *steps, int count) {
    Registers registers = seed.state.general;
    unsigned long end = (unsigned long)there->code + (twin_code_end - twin_code);
    int status;
    if (count > MOST_STEPS)
        return refuse("too many calls");
    if (put(pid, (unsigned long)there->steps, steps, count * sizeof *steps) < 0)
        return -1;
    registers.rip = (unsigned long)there->code;
    registers.rbx = (unsigned long)there->steps;
    registers.rbp = count;
    registers.rax = 0;
    registers.orig_rax = -1;
    if (ptrace(PTRACE_SETREGS, pid, 0, &registers) < 0 || ptrace(PTRACE_CONT, pid, 0, 0) < 0)
        return fail("calls");
    if (wait_stop(pid, &status) < 0)
        goto kill;
    if (ptrace(PTRACE_GETREGS, pid, 0, &registers) < 0 || status >> 8 != SIGTRAP || registers.rip != end) {
        refuse("a stopped process did not stop where it should");
        goto kill;
    }
    if (registers.rbp == 0)
        return 0;
    errno = -(int)registers.rax;
    snprintf(reason, sizeof reason, "call %ld of a copy: %s", steps[count - registers.rbp].number, strerror(errno));
    return -1;
kill:
    kill(pid, SIGKILL);
    return -1;
}

#define CALL(pid, number, ...) inject(pid, number, (const long[6]){__VA_ARGS__}, NULL)
#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            return -1;                                                                                                 \
    } while (0)

static long clone_in(pid_t pid, unsigned long flags, unsigned long thread_id, pid_t *child) {
    int status;
    *child = 0;
    MUST(inject(pid, SYS_clone, (const long[6]){flags, 0, 0, thread_id, 0, 0}, child));
    return wait_stop(*child, &status);
}

/* ---- the seed */

/* In the seed: wait to be stopped for ever. Returns in each worker that is made of it. */
long twin_park(void) {
    extern const ptrdiff_t __rseq_offset __attribute__((weak));
    extern const unsigned int __rseq_size __attribute__((weak));
    long result;
    if (&__rseq_offset && &__rseq_size && __rseq_size) /* the kernel must write into no copy's memory on its own */
        syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 1, 0x53053053);
    prctl(PR_GET_TID_ADDRESS, &thread_id_address, 0, 0, 0);
    do
        __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_pause) : "rcx", "r11", "memory");
    while (result < 0);
    return result;
}

static int read_state(pid_t pid, State *state) {
    struct iovec block = {state->extended, sizeof state->extended};
    if (ptrace(PTRACE_GETREGS, pid, 0, &state->general) < 0 ||
        ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &block) < 0 ||
        ptrace(PTRACE_GETSIGMASK, pid, sizeof state->mask, &state->mask) < 0)
        return fail("registers");
    state->extended_size = block.iov_len;
    return 0;
}

static int interrupt(pid_t pid) {
    int status;
    if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0)
        return fail("ptrace");
    return wait_stop(pid, &status);
}

/* ---- workers */

typedef struct {
    int space;   /* pidfd of the new box's process 1; this and the next are the mold's descriptors */
    int control, out, err;
    int groups[MOST_GROUPS];
    int group_count, late; /* the last `late` of them the worker enters by itself: they would only slow the twin */
    unsigned uid;
    unsigned long open_files, processes, file_bytes;
    unsigned long address_bytes; /* 0 where a control group holds the memory */
    const void *filter;
    size_t filter_size;
    int post, post_inside; /* the mold's end of the twins' socket, and theirs */
    const void *message; /* to a worker made of the seed; NULL for a copy */
    size_t message_size;
} Order;

/* Send a new twin its descriptors; it is the only one that reads now. What a failed one left is taken out first. */
static int post(const Order *order) {
    int given[4 + MOST_GROUPS] = {order->control, order->out, order->err, order->space};
    size_t size = (4 + order->group_count) * sizeof(int);
    char control[CMSG_SPACE(sizeof given)] = {0}, byte = 0;
    struct iovec text = {&byte, 1};
    struct msghdr message = {NULL, 0, &text, 1, control, CMSG_SPACE(size), 0};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    memcpy(given + 4, order->groups, order->group_count * sizeof(int));
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(head), given, size);
    while (recv(order->post_inside, &byte, 1, MSG_DONTWAIT) >= 0)
        continue;
    return sendmsg(order->post, &message, MSG_DONTWAIT) == 1 ? 0 : fail("descriptors");
}

static int limit(pid_t pid, int kind, unsigned long value) {
    struct rlimit both = {value, value};
    return prlimit(pid, kind, &both, NULL) < 0 ? fail("limits") : 0;
}

/* The twin enters the new box but for its own process number, and from now on its children are born in the box. */
static int enter_box(pid_t twin, const Order *order, const Scratch *there) {
    Step steps[MOST_STEPS] = {{SYS_recvmsg, {POST, (long)&there->message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT}}};
    int count = 1;
    for (int at = 0; at < order->group_count - order->late; at++)
        steps[count++] = (Step){SYS_write, {GROUPS + at, (long)there->zero, 1}};
    steps[count++] = (Step){SYS_setns, {SPACE, SPACES}};
    MUST(post(order));
    return run(twin, there, steps, count);
}

static int dress_worker(pid_t worker, const Order *order, const Scratch *there) {
    Step steps[MOST_STEPS] = {{SYS_setsid, {0}}, {SYS_dup3, {OUT, 1}}, {SYS_dup3, {ERR, 2}},
                              {SYS_setresgid, {order->uid, order->uid, order->uid}},
                              {SYS_setresuid, {order->uid, order->uid, order->uid}}};
    int count = 5;
    for (int at = order->group_count - order->late; at < order->group_count; at++)
        steps[count++] = (Step){SYS_write, {GROUPS + at, (long)there->zero, 1}};
    steps[count++] = (Step){SYS_close_range, {CONTROL + 1, ~0U}};
    if (!seed.filtered)
        steps[count++] = (Step){SYS_prctl, {PR_SET_SECCOMP, 2, (long)&there->program}};
    MUST(limit(worker, RLIMIT_NOFILE, order->open_files));
    MUST(limit(worker, RLIMIT_NPROC, order->processes));
    MUST(limit(worker, RLIMIT_FSIZE, order->file_bytes));
    if (order->address_bytes)
        MUST(limit(worker, RLIMIT_AS, order->address_bytes));
    return run(worker, there, steps, count);
}

static int fill(pid_t twin, const Order *order, const Scratch *there, int with_filter) {
    static Scratch page;
    if (order->filter_size > sizeof page.filter || order->group_count > MOST_GROUPS)
        return refuse("the filter is too long, or there are too many control groups");
    memset(&page, 0, offsetof(Scratch, filter));
    memcpy(page.code, twin_code, twin_code_end - twin_code);
    page.zero[0] = '0';
    page.program.count = order->filter_size / 8;
    page.program.code = (void *)there->filter;
    page.message.msg_iov = (struct iovec *)&there->text;
    page.message.msg_iovlen = 1;
    page.message.msg_control = (void *)there->control;
    page.message.msg_controllen = sizeof page.control;
    page.text.iov_base = (void *)there->byte;
    page.text.iov_len = 1;
    if (!with_filter)
        return put(twin, (unsigned long)there, &page, offsetof(Scratch, filter));
    memcpy(page.filter, order->filter, order->filter_size);
    return put(twin, (unsigned long)there, &page, offsetof(Scratch, filter) + order->filter_size);
}

static int wake_as(pid_t worker, const State *state) {
    Registers registers = state->general;
    struct iovec block = {(void *)state->extended, state->extended_size};
    registers.orig_rax = -1;
    if (ptrace(PTRACE_SETREGS, worker, 0, &registers) < 0 ||
        ptrace(PTRACE_SETREGSET, worker, NT_X86_XSTATE, &block) < 0 ||
        ptrace(PTRACE_SETSIGMASK, worker, sizeof state->mask, &state->mask) < 0)
        return fail("registers of a copy");
    return 0;
}

/* Make a twin and a worker; both stay stopped. Whatever was made is in `made`, also where it fails. */
int twin_make(pid_t source, const Order *order, const State *state, pid_t made[2]) {
    unsigned long flags = CLONE_VM | CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
    made[0] = made[1] = 0;
    MUST(check_instruction(source));
    MUST(clone_in(source, CLONE_PARENT | SIGCHLD, 0, &made[0]));
    pid_t twin = made[0];
    long page = CALL(twin, SYS_mmap, 0, sizeof(Scratch), PROT_READ | PROT_WRITE | PROT_EXEC,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(page);
    const Scratch *there = (const Scratch *)page;
    MUST(fill(twin, order, there, !seed.filtered));
    MUST(enter_box(twin, order, there));
    MUST(clone_in(twin, flags, seed.thread_id, &made[1]));
    MUST(CALL(twin, SYS_close_range, CONTROL, MOLD - 1));
    MUST(dress_worker(made[1], order, there));
    MUST(CALL(twin, SYS_munmap, page, sizeof(Scratch)));
    if (state != NULL)
        return wake_as(made[1], state);
    State *born = &seed.state;
    born->general.rax = order->message_size;
    MUST(put(made[1], seed.message, order->message, order->message_size));
    return wake_as(made[1], born);
}

/* Load the filter into the seed, whose children inherit it; calls that the mold makes in them pass it. */
static int filter_seed(pid_t pid, const Order *order) {
    long page = CALL(pid, SYS_mmap, 0, sizeof(Scratch), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(page);
    MUST(fill(pid, order, (const Scratch *)page, 1));
    MUST(CALL(pid, SYS_prctl, PR_SET_SECCOMP, 2, (long)&((const Scratch *)page)->program));
    return CALL(pid, SYS_munmap, page, sizeof(Scratch));
}

/* 1 where the seed is parked and held, 0 where it is not there yet, below 0 where it cannot be. */
int twin_seed(pid_t pid, unsigned long message, const Order *order) {
    Registers *now = &seed.state.general;
    seed.filtered = 1;
    if (ptrace(PTRACE_SEIZE, pid, 0, OPTIONS | PTRACE_O_SUSPEND_SECCOMP) < 0) {
        /* Not allowed to who is not the machine's root, or is filtered itself: then each worker loads its own. */
        seed.filtered = 0;
        if (ptrace(PTRACE_SEIZE, pid, 0, OPTIONS) < 0)
            return fail("ptrace");
    }
    MUST(interrupt(pid));
    MUST(read_state(pid, &seed.state));
    if (now->orig_rax != SYS_pause) {
        ptrace(PTRACE_DETACH, pid, 0, 0);
        return 0;
    }
    seed.instruction = now->rip - 2;
    seed.message = message;
    errno = 0;
    seed.thread_id = ptrace(PTRACE_PEEKDATA, pid, &thread_id_address, 0);
    if (errno || seed.thread_id == 0)
        return refuse("the seed does not sit where it should");
    MUST(check_instruction(pid));
    if (seed.filtered)
        MUST(filter_seed(pid, order));
    return 1;
}

/* Let a worker go. It may run on every processor again, whatever the twin was held to. */
int twin_release(pid_t worker, const cpu_set_t *processors, size_t size, int priority) {
    sched_setaffinity(worker, size, processors);
    setpriority(PRIO_PROCESS, worker, priority);
    return ptrace(PTRACE_DETACH, worker, 0, 0) < 0 ? fail("release") : 0;
}

size_t twin_state_size(void) { return sizeof(State); }

/* Stop a live worker that waits in read(3): 1 where it does, 0 where it does something else and goes on. */
int twin_stop(pid_t worker, pid_t twin, State *state) {
    if (ptrace(PTRACE_SEIZE, worker, 0, 0) < 0)
        return fail("ptrace");
    MUST(interrupt(worker));
    if (read_state(worker, state) < 0)
        goto go_on;
    Registers *now = &state->general;
    if (now->orig_rax != SYS_read || (long)now->rax != -512 || now->rdi != 3) {
        ptrace(PTRACE_DETACH, worker, 0, 0);
        return 0;
    }
    if (syscall(SYS_kcmp, worker, twin, 1 /* KCMP_VM */, 0, 0) != 0) {
        refuse("the program replaced itself by another");
        goto go_on;
    }
    if (check_instruction(twin) < 0 || CALL(twin, SYS_setns, MOLD, CLONE_NEWPID) < 0)
        goto go_on; /* a twin's children are born in its box, which is no place to enter another from */
    now->rip -= 2; /* each copy makes the call again, on its own socket */
    now->rax = SYS_read;
    return 1;
go_on:
    ptrace(PTRACE_DETACH, worker, 0, 0);
    return -1;
}

/* ---- a program in a new process of the mold's, without a copy of the mold's memory */

typedef struct {
    int program, count;
    const int *descriptors;
    char *const *words;
} Start;

static int start_program(void *argument) {
    const Start *start = argument;
    int high[32];
    char *none[] = {NULL};
    for (int at = 0; at < start->count; at++)
        high[at] = fcntl(start->descriptors[at], F_DUPFD_CLOEXEC, 200);
    int program = fcntl(start->program, F_DUPFD_CLOEXEC, 200);
    for (int at = 0; at < start->count; at++)
        dup2(high[at], 3 + at);
    syscall(SYS_execveat, program, "", start->words, none, 0x1000 /* AT_EMPTY_PATH */);
    _exit(127);
}

pid_t twin_spawn(int program, char *const words[], const int descriptors[], int count, int new_process_space) {
    static char stack[1 << 16] __attribute__((aligned(64)));
    Start start = {program, count, descriptors, words};
    if (count > 32)
        return refuse("too many descriptors");
    int flags = CLONE_VM | CLONE_VFORK | SIGCHLD | (new_process_space ? CLONE_NEWPID : 0);
    pid_t pid = clone(start_program, stack + sizeof stack, flags, &start);
    return pid < 0 ? fail("clone") : pid;
}
