/* Has the i-th file operation of a process fail, or end the process; loaded by LD_PRELOAD, armed by its environment:

   FAULT_UNDER   folders, with ':' between them: operations that change something in them are counted, from 0
   FAULT_LOG     a file that gets a line for each, "INDEX OPERATION PATH"
   FAULT_AT      the index of the operation that the fault happens to
   FAULT_KIND    "kill": the process is gone before it; "half": it writes half of what it was to write, and is gone;
                 "signal": the process gets the signal FAULT_NUMBER; "error": the operation fails, errno is FAULT_NUMBER
   FAULT_ALWAYS  "1": every later operation fails too, where it can

   A process that was forked from one which had loaded it calls fault_arm() once its environment is set. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum effect { WRITES, SYNCS, CREATES, OPENS, REMOVES, CHANGES };
enum fate { GOES_ON, HALVED, FAILS };

static char under[PATH_MAX], kind[16];
static long at = -1, count;
static int armed, number, always, log_file = -1;

static const char *given(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

__attribute__((constructor)) void fault_arm(void) {
    snprintf(under, sizeof under, "%s", given("FAULT_UNDER"));
    snprintf(kind, sizeof kind, "%s", given("FAULT_KIND"));
    at = *given("FAULT_AT") ? atol(given("FAULT_AT")) : -1;
    number = atoi(given("FAULT_NUMBER"));
    always = atoi(given("FAULT_ALWAYS"));
    count = 0;
    if (*given("FAULT_LOG"))
        log_file = syscall(SYS_openat, AT_FDCWD, given("FAULT_LOG"), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
    armed = *under != 0;
}

static int counted(const char *path) {
    for (const char *folder = under; *folder;) {
        size_t length = strcspn(folder, ":");
        if (!strncmp(path, folder, length) && (path[length] == '/' || !path[length])) return 1;
        folder += length + (folder[length] == ':');
    }
    return 0;
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int absolute(int folder, const char *name, char *path) {
    char parent[PATH_MAX];
    if (*name == '/') return snprintf(path, PATH_MAX, "%s", name) > 0;
    if (folder == AT_FDCWD ? !getcwd(parent, sizeof parent) : !path_of(folder, parent)) return 0;
    return snprintf(path, PATH_MAX, "%s/%s", parent, name) < PATH_MAX;
}

/* A disk that is full hinders neither the removal of a file nor a new mode; a permission is asked for by name alone. */
static int can_fail(enum effect effect) {
    switch (number) {
    case ENOSPC: case EDQUOT: return effect == WRITES || effect == SYNCS || effect == CREATES;
    case EACCES: case EPERM: case EROFS: return effect == CREATES || effect == OPENS || effect == REMOVES;
    default: return 1;
    }
}

static enum fate fate_of(const char *operation, enum effect effect, const char *path) {
    if (!counted(path)) return GOES_ON;
    long index = __sync_fetch_and_add(&count, 1);
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%ld %s %s\n", index, operation, path);
    if (log_file >= 0) syscall(SYS_write, log_file, line, length);
    if (index < at || at < 0 || (index > at && !always)) return GOES_ON;
    if (!strcmp(kind, "half") && effect == WRITES) return HALVED;
    if (!strcmp(kind, "kill") || !strcmp(kind, "half")) kill(getpid(), SIGKILL);
    if (!strcmp(kind, "signal")) kill(getpid(), number);
    if (strcmp(kind, "error") || !can_fail(effect)) return GOES_ON;
    errno = number;
    return FAILS;
}

/* What is not there cannot be removed, and what is there is not made again: nothing happens, whatever the disk is like. */
static int is_void(const char *operation, enum effect effect, const char *path) {
    struct stat found;
    if (effect == REMOVES) return lstat(path, &found) < 0;
    return !strncmp(operation, "mkdir", 5) && !lstat(path, &found);
}

static enum fate by_name(const char *operation, enum effect effect, int folder, const char *name) {
    char path[PATH_MAX];
    if (!armed || !absolute(folder, name, path) || is_void(operation, effect, path)) return GOES_ON;
    return fate_of(operation, effect, path);
}

static enum fate by_descriptor(const char *operation, enum effect effect, int descriptor) {
    char path[PATH_MAX];
    return armed && path_of(descriptor, path) ? fate_of(operation, effect, path) : GOES_ON;
}

/* Each function below is the C library's with one question before it. */
#define REAL(name)                 \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ASKED(fate, call) (fate) == FAILS ? -1 : (call)

/* `half` is the call for a part of the data. */
#define WRITING(name, descriptor, whole, half)           \
    REAL(name);                                          \
    enum fate fate = by_descriptor(#name, WRITES, descriptor); \
    if (fate == HALVED) {                                \
        if ((half) < 0) abort();                         \
        kill(getpid(), SIGKILL);                         \
    }                                                    \
    return ASKED(fate, whole)

ssize_t write(int fd, const void *data, size_t size) {
    WRITING(write, fd, real(fd, data, size), real(fd, data, size / 2));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t from) {
    WRITING(pwrite, fd, real(fd, data, size, from), real(fd, data, size / 2, from));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t from) {
    WRITING(pwrite64, fd, real(fd, data, size, from), real(fd, data, size / 2, from));
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    WRITING(writev, fd, real(fd, parts, n), real(fd, parts, n / 2));
}
ssize_t sendfile(int to, int from, off_t *place, size_t size) {
    WRITING(sendfile, to, real(to, from, place, size), real(to, from, place, 1));
}
ssize_t sendfile64(int to, int from, off64_t *place, size_t size) {
    WRITING(sendfile64, to, real(to, from, place, size), real(to, from, place, 1));
}
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    WRITING(copy_file_range, to, real(from, a, to, b, size, flags), real(from, a, to, b, 1, flags));
}

#define BY_DESCRIPTOR(name, effect, parameters, ...)                           \
    int name parameters {                                                      \
        REAL(name);                                                            \
        return ASKED(by_descriptor(#name, effect, fd), real(__VA_ARGS__));     \
    }
BY_DESCRIPTOR(fsync, SYNCS, (int fd), fd)
BY_DESCRIPTOR(fdatasync, SYNCS, (int fd), fd)
BY_DESCRIPTOR(ftruncate, WRITES, (int fd, off_t size), fd, size)
BY_DESCRIPTOR(ftruncate64, WRITES, (int fd, off64_t size), fd, size)
BY_DESCRIPTOR(fchmod, CHANGES, (int fd, mode_t mode), fd, mode)

#define BY_NAME(name, effect, folder, path, parameters, ...)                   \
    int name parameters {                                                      \
        REAL(name);                                                            \
        return ASKED(by_name(#name, effect, folder, path), real(__VA_ARGS__)); \
    }
BY_NAME(mkdir, CREATES, AT_FDCWD, path, (const char *path, mode_t mode), path, mode)
BY_NAME(mkdirat, CREATES, folder, path, (int folder, const char *path, mode_t mode), folder, path, mode)
BY_NAME(unlink, REMOVES, AT_FDCWD, path, (const char *path), path)
BY_NAME(rmdir, REMOVES, AT_FDCWD, path, (const char *path), path)
BY_NAME(unlinkat, REMOVES, folder, path, (int folder, const char *path, int flags), folder, path, flags)
BY_NAME(chmod, CHANGES, AT_FDCWD, path, (const char *path, mode_t mode), path, mode)
BY_NAME(fchmodat, CHANGES, folder, path, (int folder, const char *path, mode_t mode, int flags),
        folder, path, mode, flags)
BY_NAME(truncate, WRITES, AT_FDCWD, path, (const char *path, off_t size), path, size)
BY_NAME(symlink, CREATES, AT_FDCWD, path, (const char *target, const char *path), target, path)
BY_NAME(link, CREATES, AT_FDCWD, path, (const char *old, const char *path), old, path)
BY_NAME(linkat, CREATES, to, path, (int from, const char *old, int to, const char *path, int flags),
        from, old, to, path, flags)
BY_NAME(rename, CREATES, AT_FDCWD, path, (const char *old, const char *path), old, path)
BY_NAME(renameat, CREATES, to, path, (int from, const char *old, int to, const char *path), from, old, to, path)
BY_NAME(renameat2, CREATES, to, path, (int from, const char *old, int to, const char *path, unsigned flags),
        from, old, to, path, flags)

/* Only what opens a file to write to it. */
static enum fate opening(int folder, const char *path, int flags) {
    if (!(flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC))) return GOES_ON;
    return flags & O_CREAT ? by_name("create", CREATES, folder, path) : by_name("open", OPENS, folder, path);
}

#define MODE(mode, flags)                        \
    mode_t mode = 0;                             \
    if (flags & (O_CREAT | O_TMPFILE)) {         \
        va_list rest;                            \
        va_start(rest, flags);                   \
        mode = va_arg(rest, mode_t);             \
        va_end(rest);                            \
    }
#define OPEN(name, folder, parameters, ...)                               \
    int name parameters {                                                 \
        REAL(name);                                                       \
        MODE(mode, flags)                                                 \
        return ASKED(opening(folder, path, flags), real(__VA_ARGS__));    \
    }
OPEN(open, AT_FDCWD, (const char *path, int flags, ...), path, flags, mode)
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), path, flags, mode)
OPEN(openat, folder, (int folder, const char *path, int flags, ...), folder, path, flags, mode)
OPEN(openat64, folder, (int folder, const char *path, int flags, ...), folder, path, flags, mode)

#define OPEN_STREAM(name)                                                                     \
    FILE *name(const char *path, const char *mode) {                                          \
        REAL(name);                                                                           \
        int writes = strpbrk(mode, "wa+") != NULL;                                            \
        if (writes && by_name("create", CREATES, AT_FDCWD, path) == FAILS) return NULL;       \
        return real(path, mode);                                                              \
    }
OPEN_STREAM(fopen)
OPEN_STREAM(fopen64)
