/* Fails the N-th open, write, fsync or rename below a folder, in whatever library makes it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, FSYNC, RENAME, KINDS };
static char folder[4096];
static long counts[KINDS];
static int armed, kind_to_fail, error_to_give;
static long number_to_fail;

/* number 0 only counts; error 0 kills */
void faults_arm(const char *below, int kind, long number, int error) {
    snprintf(folder, sizeof folder, "%s", below);
    memset(counts, 0, sizeof counts);
    kind_to_fail = kind; number_to_fail = number; error_to_give = error; armed = 1;
}
void faults_disarm(void) { armed = 0; }
long faults_count(int kind) { return counts[kind]; }

static int inside(const char *path) {
    size_t n = strlen(folder);
    char here[4096];
    if (path[0] == '/') return !strncmp(path, folder, n) && path[n] == '/';
    if (!getcwd(here, sizeof here)) return 0;
    return !strncmp(here, folder, n) && (here[n] == '/' || !here[n]);
}
static int inside_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return path[0] == '/' && inside(path);
}
static int fails(int kind) {
    if (++counts[kind] != number_to_fail || kind != kind_to_fail) return 0;
    if (!error_to_give) kill(getpid(), SIGKILL);
    errno = error_to_give;
    return 1;
}
#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define MODE va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list)

int open(const char *path, int flags, ...) {
    REAL(open); MODE;
    if (armed && inside(path) && fails(OPEN)) return -1;
    return real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(open64); MODE;
    if (armed && inside(path) && fails(OPEN)) return -1;
    return real(path, flags, mode);
}
int openat(int fd, const char *path, int flags, ...) {
    REAL(openat); MODE;
    if (armed && fd == AT_FDCWD && inside(path) && fails(OPEN)) return -1;
    return real(fd, path, flags, mode);
}
int openat64(int fd, const char *path, int flags, ...) {
    REAL(openat64); MODE;
    if (armed && fd == AT_FDCWD && inside(path) && fails(OPEN)) return -1;
    return real(fd, path, flags, mode);
}
FILE *fopen(const char *path, const char *how) {
    REAL(fopen);
    if (armed && inside(path) && fails(OPEN)) return 0;
    return real(path, how);
}
FILE *fopen64(const char *path, const char *how) {
    REAL(fopen64);
    if (armed && inside(path) && fails(OPEN)) return 0;
    return real(path, how);
}
ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (armed && inside_fd(fd) && fails(WRITE)) return -1;
    return real(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    if (armed && inside_fd(fd) && fails(WRITE)) return -1;
    return real(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (armed && inside_fd(fd) && fails(WRITE)) return -1;
    return real(fd, parts, count);
}
int fsync(int fd) {
    REAL(fsync);
    if (armed && inside_fd(fd) && fails(FSYNC)) return -1;
    return real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    if (armed && inside_fd(fd) && fails(FSYNC)) return -1;
    return real(fd);
}
int rename(const char *from, const char *to) {
    REAL(rename);
    if (armed && inside(to) && fails(RENAME)) return -1;
    return real(from, to);
}
int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    REAL(renameat);
    if (armed && to_fd == AT_FDCWD && inside(to) && fails(RENAME)) return -1;
    return real(from_fd, from, to_fd, to);
}
