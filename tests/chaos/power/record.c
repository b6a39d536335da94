/* Writes down, in order, what a process does to the files under one folder: to be loaded into it by LD_PRELOAD.
 *
 * QUICKCMD_RECORD_ROOT: the folder. QUICKCMD_RECORD: the file that the records are appended to, each by one write:
 *
 *   1 byte  what (WHAT below)         8 bytes  a number (an offset, a length, the number of a sync)
 *   4 bytes length of the path        4 bytes  length of the data (a second path for RENAME and LINK)
 *   then the path and the data. Numbers are in the machine's order.
 *
 * A change is recorded after it is done and a sync before and after, so what stands before the record of a sync's
 * beginning is what that sync brings to the disk. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum what { CREATE = 1, WRITE, TRUNCATE, RENAME, UNLINK, MKDIR, RMDIR, LINK, SYNC_BEGINS, SYNC_ENDS };

static int record = -1;
static char root[PATH_MAX];
static size_t root_length;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static uint64_t syncs;

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("QUICKCMD_RECORD_ROOT"), *file = getenv("QUICKCMD_RECORD");
    if (!folder || !file || strlen(folder) >= sizeof root)
        return;
    strcpy(root, folder);
    root_length = strlen(root);
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    /* Out of the way of those who count descriptors from below. */
    record = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 900);
    if (record < 0)
        abort();
    syscall(SYS_close, fd);
}

static int ours(const char *path) {
    return record >= 0 && path && strncmp(path, root, root_length) == 0 && (!path[root_length] || path[root_length] == '/');
}

/* The path of an open file or folder of ours; 0 for any other. */
static int path_of(int fd, char *path) {
    struct stat about;
    char link[40];
    if (record < 0 || fd < 3 || fstat(fd, &about) || !(S_ISREG(about.st_mode) || S_ISDIR(about.st_mode)))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    /* Of a file without a name nothing is left anyway. */
    return ours(path) && about.st_nlink > 0;
}

static void put(enum what what, const char *path, uint64_t number, const void *data, size_t length) {
    unsigned char head[17];
    uint32_t path_length = strlen(path), data_length = length;
    head[0] = what;
    memcpy(head + 1, &number, 8);
    memcpy(head + 9, &path_length, 4);
    memcpy(head + 13, &data_length, 4);
    struct iovec parts[] = {{head, sizeof head}, {(void *)path, path_length}, {(void *)data, length}};
    if (syscall(SYS_writev, record, parts, 3) != (long)(sizeof head + path_length + length))
        abort();
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) \
        real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!ours(path) || !(flags & (O_CREAT | O_TRUNC)))
        return real(path, flags, mode);
    pthread_mutex_lock(&order);
    struct stat before;
    int there = stat(path, &before) == 0;
    int fd = real(path, flags, mode);
    if (fd >= 0 && !there)
        put(CREATE, path, 0, "", 0);
    else if (fd >= 0 && flags & O_TRUNC && before.st_size > 0)
        put(TRUNCATE, path, 0, "", 0);
    pthread_mutex_unlock(&order);
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return opened(real, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

static void wrote(int fd, const char *path, const struct iovec *parts, int count, uint64_t at, size_t length) {
    for (int i = 0; i < count && length > 0; i++) {
        size_t part = parts[i].iov_len < length ? parts[i].iov_len : length;
        put(WRITE, path, at, parts[i].iov_base, part);
        at += part;
        length -= part;
    }
}

ssize_t write(int fd, const void *data, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    char path[PATH_MAX];
    if (!path_of(fd, path))
        return real(fd, data, length);
    pthread_mutex_lock(&order);
    ssize_t done = real(fd, data, length);
    if (done > 0)
        put(WRITE, path, lseek(fd, 0, SEEK_CUR) - done, data, done);
    pthread_mutex_unlock(&order);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    char path[PATH_MAX];
    if (!path_of(fd, path))
        return real(fd, parts, count);
    pthread_mutex_lock(&order);
    ssize_t done = real(fd, parts, count);
    if (done > 0)
        wrote(fd, path, parts, count, lseek(fd, 0, SEEK_CUR) - done, done);
    pthread_mutex_unlock(&order);
    return done;
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t length, off_t at) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        char path[PATH_MAX]; \
        if (!path_of(fd, path)) \
            return real(fd, data, length, at); \
        pthread_mutex_lock(&order); \
        ssize_t done = real(fd, data, length, at); \
        if (done > 0) \
            put(WRITE, path, at, data, done); \
        pthread_mutex_unlock(&order); \
        return done; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define FTRUNCATE(name) \
    int name(int fd, off_t length) { \
        REAL(int, #name, int, off_t); \
        char path[PATH_MAX]; \
        if (!path_of(fd, path)) \
            return real(fd, length); \
        pthread_mutex_lock(&order); \
        int failed = real(fd, length); \
        if (!failed) \
            put(TRUNCATE, path, length, "", 0); \
        pthread_mutex_unlock(&order); \
        return failed; \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

/* The data of a sync's beginning: the file's length, for others append to some files, too. */
#define SYNC(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        char path[PATH_MAX]; \
        struct stat about; \
        if (!path_of(fd, path) || fstat(fd, &about)) \
            return real(fd); \
        pthread_mutex_lock(&order); \
        uint64_t number = ++syncs, length = about.st_size; \
        put(SYNC_BEGINS, path, number, &length, sizeof length); \
        pthread_mutex_unlock(&order); \
        int failed = real(fd); \
        if (!failed) { \
            pthread_mutex_lock(&order); \
            put(SYNC_ENDS, path, number, "", 0); \
            pthread_mutex_unlock(&order); \
        } \
        return failed; \
    }
SYNC(fsync)
SYNC(fdatasync)

#define ONE_PATH(name, what, parameters, arguments) \
    int name parameters { \
        static int(*real) parameters; \
        if (!real) \
            real = (int(*) parameters)dlsym(RTLD_NEXT, #name); \
        if (!ours(path)) \
            return real arguments; \
        pthread_mutex_lock(&order); \
        int failed = real arguments; \
        if (!failed) \
            put(what, path, 0, "", 0); \
        pthread_mutex_unlock(&order); \
        return failed; \
    }
ONE_PATH(unlink, UNLINK, (const char *path), (path))
ONE_PATH(rmdir, RMDIR, (const char *path), (path))
ONE_PATH(mkdir, MKDIR, (const char *path, mode_t mode), (path, mode))

static void moved(enum what what, const char *from, const char *to) {
    if (ours(from) || ours(to))
        put(what, from, 0, to, strlen(to));
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    pthread_mutex_lock(&order);
    int failed = real(from, to);
    if (!failed)
        moved(RENAME, from, to);
    pthread_mutex_unlock(&order);
    return failed;
}

int link(const char *from, const char *to) {
    REAL(int, "link", const char *, const char *);
    pthread_mutex_lock(&order);
    int failed = real(from, to);
    if (!failed)
        moved(LINK, from, to);
    pthread_mutex_unlock(&order);
    return failed;
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    pthread_mutex_lock(&order);
    int failed = real(from_fd, from, to_fd, to, flags);
    if (!failed && from[0] == '/' && to[0] == '/')
        moved(LINK, from, to);
    pthread_mutex_unlock(&order);
    return failed;
}
