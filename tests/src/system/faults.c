/*
 * Stands between a program and its system, and makes the system fail on demand. Loaded with LD_PRELOAD.
 *
 * ENIGMA_FAULTS names a file of 64-bit numbers that is mapped, so that a test changes them while the program runs;
 * `system.rs` has the same list. ENIGMA_FAULTS_UNDER is the directory whose files fail; nothing else does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE_ERROR, SYNC_ERROR, SYNC_MILLIS, TORN, READ_ERROR, ROOM, OPEN_ERROR, CLOCK_MILLIS, FAILED, NUMBERS };

static int64_t none[NUMBERS];
static volatile int64_t *numbers = none;
static char under[4096];
static size_t under_length;

#define REAL(type, name, ...)                                   \
    static type (*real)(__VA_ARGS__);                           \
    if (!real)                                                  \
        real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("ENIGMA_FAULTS"), *directory = getenv("ENIGMA_FAULTS_UNDER");
    if (!path || !directory || !realpath(directory, under)) return;
    under_length = strlen(under);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) numbers = mapped;
    close(fd);
}

/* Whether a descriptor is one of the files that fail. */
static int ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return !strncmp(path, under, under_length) && path[under_length] == '/';
}

static int fail(int64_t error) {
    __atomic_add_fetch(&numbers[FAILED], 1, __ATOMIC_RELAXED);
    errno = (int)error;
    return -1;
}

/* How much of a write goes through; -1 when none does, and errno is set. ROOM is what a full disk has left. */
static ssize_t allowed(int fd, size_t count) {
    int64_t error = numbers[WRITE_ERROR], torn = numbers[TORN];
    if ((!error && !torn) || !ours(fd)) return (ssize_t)count;
    if (torn) return (ssize_t)(count > 1 ? count / 2 : count);
    if (numbers[ROOM] > 0) {
        numbers[ROOM] -= (int64_t)count;
        return (ssize_t)count;
    }
    return fail(error);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    ssize_t most = allowed(fd, count);
    return most < 0 ? -1 : real(fd, bytes, (size_t)most);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    ssize_t most = allowed(fd, count);
    return most < 0 ? -1 : real(fd, bytes, (size_t)most, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    ssize_t most = allowed(fd, count);
    return most < 0 ? -1 : real(fd, bytes, (size_t)most, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    REAL(ssize_t, "pread64", int, void *, size_t, off64_t);
    if (numbers[READ_ERROR] && ours(fd)) return fail(numbers[READ_ERROR]);
    return real(fd, bytes, count, at);
}

/* A disk that is full cannot make a file longer. */
int ftruncate64(int fd, off64_t length) {
    REAL(int, "ftruncate64", int, off64_t);
    if (numbers[WRITE_ERROR] && numbers[ROOM] <= 0 && length > 0 && ours(fd)) return fail(numbers[WRITE_ERROR]);
    return real(fd, length);
}

/* A directory that may be read only: whatever is opened to be written is refused. */
static int open_in(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    char parent[4096], resolved[4096];
    int64_t error = numbers[OPEN_ERROR];
    if (error && (flags & O_ACCMODE) != O_RDONLY && strlen(path) < sizeof parent) {
        char *slash = strrchr(strcpy(parent, path), '/');
        if (slash) *slash = 0;
        if (realpath(slash ? parent : ".", resolved) && !strncmp(resolved, under, under_length) && under_length)
            return fail(error);
    }
    return real(path, flags, mode);
}

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        REAL(int, #name, const char *, int, ...);                    \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                \
        return open_in(real, path, flags, mode);              \
    }

OPEN(open)
OPEN(open64)

static int before_sync(int fd) {
    int64_t millis = numbers[SYNC_MILLIS], error = numbers[SYNC_ERROR];
    if ((!millis && !error) || !ours(fd)) return 0;
    if (millis) {
        struct timespec pause = {millis / 1000, millis % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    return error ? fail(error) : 0;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return before_sync(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return before_sync(fd) ? -1 : real(fd);
}

/* What people call the time; what timers count is left alone. */
int clock_gettime(clockid_t clock, struct timespec *time) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int told = real(clock, time);
    int64_t millis = numbers[CLOCK_MILLIS];
    if (!told && millis && clock == CLOCK_REALTIME) {
        int64_t nanos = time->tv_nsec + millis % 1000 * 1000000;
        time->tv_sec += millis / 1000 + (nanos < 0 ? -1 : nanos >= 1000000000);
        time->tv_nsec = (nanos + 1000000000) % 1000000000;
    }
    return told;
}
