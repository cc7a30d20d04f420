/* Process 1 of a box, and the program that copies one box's files into another's.
 *
 *   boxinit NICE init OPTIONS UID GROUPS   descriptors: 3 word to the mold, 4 filter, 5... GROUPS files of control groups
 *   boxinit NICE copy UID GROUPS           descriptors: 3 word to the mold, 4 5 and 6 7 a folder and where it goes, 8...
 *                                          groups
 *
 * It starts with every right of the mold and ends with none. What it says on descriptor 3 is "R", or the step that
 * failed. Static, so that it owes nothing to the box's root and costs a hundred kilobytes.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WORD = 3, FILTER = 4, WORKSPACE = 10, TEMPORARY = 11, DEEPEST = 200 };
static const unsigned long QUIET = MS_NOSUID | MS_NODEV;

static void fail(const char *step) {
    char text[200];
    int length = snprintf(text, sizeof text, "%s: %s", step, strerror(errno));
    if (write(WORD, text, length) < 0)
        _exit(2);
    _exit(1);
}

static void must(long result, const char *step) {
    if (result < 0)
        fail(step);
}

/* "0" is the caller; in a version 1 group it moves without the kernel's global lock. */
static void enter_groups(int first, int count) {
    for (int at = 0; at < count; at++)
        must(write(first + at, "0", 1), "control group");
}

static void load_filter(void) {
    static struct sock_filter code[4096];
    ssize_t size = pread(FILTER, code, sizeof code, 0);
    must(size, "filter");
    struct sock_fprog program = {size / sizeof *code, code};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges");
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), "seccomp");
}

static void keep_folder(const char *path, int number) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(folder, path);
    must(dup2(folder, number), path);
    close(folder);
}

static void become_init(const char *options, uid_t uid, int groups) {
    must(unshare(CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWNS), "namespaces");
    enter_groups(5, groups);
    must(unshare(CLONE_NEWCGROUP), "control group namespace");
    must(mount("tmpfs", "/workspace", "tmpfs", QUIET, options), "workspace");
    must(mount("tmpfs", "/tmp", "tmpfs", QUIET, options), "/tmp");
    must(mount("proc", "/proc", "proc", QUIET | MS_NOEXEC, "subset=pid,hidepid=2"), "/proc");
    must(sethostname("box", 3), "host name");
    must(syscall(SYS_close_range, 5, ~0U, 0), "descriptors");
    keep_folder("/workspace", WORKSPACE);
    keep_folder("/tmp", TEMPORARY);
    for (int right = 0; prctl(PR_CAPBSET_READ, right, 0, 0, 0) >= 0; right++)
        must(prctl(PR_CAPBSET_DROP, right, 0, 0, 0), "rights");
    must(setgroups(0, NULL), "groups");
    must(setresgid(uid, uid, uid), "group");
    must(setresuid(uid, uid, uid), "user");
    must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable");
    must(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "parent");
    signal(SIGCHLD, SIG_IGN); /* orphans are reaped by the kernel */
    load_filter();
    must(write(WORD, "R", 1), "ready");
    close(WORD);
    close(FILTER);
    for (;;)
        pause();
}

/* ---- copying: the source's owner is stopped, and nothing is opened through a link */

static uid_t owner;

static void facts(int there, const struct stat *old) {
    struct timespec times[2] = {old->st_atim, old->st_mtim};
    must(fchown(there, owner, owner), "copy: owner");
    must(fchmod(there, old->st_mode & 01777), "copy: mode");
    must(futimens(there, times), "copy: times");
}

static void copy_bytes(int from, int into, off_t size) {
    static char block[1 << 17];
    must(ftruncate(into, size), "copy: size");
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0)
            return;
        off_t hole = lseek(from, data, SEEK_HOLE);
        must(hole, "copy: holes");
        for (at = data; at < hole;) {
            size_t most = hole - at < (off_t)sizeof block ? (size_t)(hole - at) : sizeof block;
            ssize_t count = pread(from, block, most, at);
            must(count, "copy: read");
            if (count == 0)
                return;
            errno = ENOSPC;
            if (pwrite(into, block, count, at) != count)
                fail("copy: write");
            at += count;
        }
    }
}

static void copy_folder(int from, int into, int depth);

static void copy_entry(int from, int into, const char *name, int depth) {
    struct stat old;
    char target[4097];
    must(fstatat(from, name, &old, AT_SYMLINK_NOFOLLOW), "copy: stat");
    if (S_ISDIR(old.st_mode)) {
        must(mkdirat(into, name, 0700), "copy: folder");
        int here = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        must(here, "copy: open");
        int there = openat(into, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        must(there, "copy: open");
        copy_folder(here, there, depth + 1);
        facts(there, &old);
        close(here);
        close(there);
    } else if (S_ISREG(old.st_mode)) {
        int here = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        must(here, "copy: open");
        int there = openat(into, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        must(there, "copy: create");
        copy_bytes(here, there, old.st_size);
        facts(there, &old);
        close(here);
        close(there);
    } else if (S_ISLNK(old.st_mode)) {
        ssize_t length = readlinkat(from, name, target, sizeof target - 1);
        must(length, "copy: link");
        target[length] = 0;
        must(symlinkat(target, into, name), "copy: link");
        must(fchownat(into, name, owner, owner, AT_SYMLINK_NOFOLLOW), "copy: owner");
    } else if (S_ISFIFO(old.st_mode)) {
        must(mkfifoat(into, name, old.st_mode & 0777), "copy: fifo");
        must(fchownat(into, name, owner, owner, AT_SYMLINK_NOFOLLOW), "copy: owner");
    } /* a socket has no meaning in the copy */
}

static void copy_folder(int from, int into, int depth) {
    errno = ELOOP;
    if (depth > DEEPEST)
        fail("copy: folders within folders");
    /* Opened anew: others that copy the same folder now must not share its position. */
    DIR *entries = fdopendir(openat(from, ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (entries == NULL)
        fail("copy: list");
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            copy_entry(from, into, entry->d_name, depth);
    closedir(entries);
}

int main(int count, char **words) {
    if (count < 3)
        return 2;
    setpriority(PRIO_PROCESS, 0, atoi(words[1]));
    if (count == 6 && !strcmp(words[2], "init"))
        become_init(words[3], strtoul(words[4], NULL, 10), atoi(words[5]));
    if (count == 5 && !strcmp(words[2], "copy")) {
        cpu_set_t every;
        memset(&every, 0xff, sizeof every); /* the mold may be held to one processor just now */
        sched_setaffinity(0, sizeof every, &every);
        owner = strtoul(words[3], NULL, 10);
        enter_groups(8, atoi(words[4]));
        umask(0);
        copy_folder(4, 5, 0);
        copy_folder(6, 7, 0);
        return 0;
    }
    return 2;
}
