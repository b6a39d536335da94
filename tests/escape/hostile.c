/* What a shell can't try: system calls, threads, zombies. Built static by the tests, and brought into the sandbox by
 * `sandbox.files`. Each verb prints a line for what it could do that it should not; `tried N` says how many were tried. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif

static int tried;

/* Anything but a refusal is a find. EFAULT and EINVAL mean that the kernel has begun to look at what was asked. */
static void refused(const char *what, long result) {
    int why = errno;
    tried++;
    if (result >= 0)
        printf("DID %s\n", what);
    else if (why != EPERM && why != EACCES && why != ENOSYS && why != EAFNOSUPPORT && why != EPROTONOSUPPORT)
        printf("REACHED %s: %s\n", what, strerror(why));
    fflush(stdout);
}

static int calls(void) {
    refused("mount", mount("none", "/tmp", "tmpfs", 0, ""));
    refused("bind mount", mount("/", "/tmp", 0, MS_BIND, 0));
    refused("remount", mount(0, "/", 0, MS_REMOUNT, 0));
    refused("umount", umount2("/tmp", MNT_DETACH));
    refused("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
    refused("chroot", chroot("/tmp"));
    refused("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    refused("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/", AT_FDCWD, "/tmp", 0));
    refused("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    refused("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, 0, 0));
    refused("unshare user", unshare(CLONE_NEWUSER));
    refused("unshare mount", unshare(CLONE_NEWNS));
    refused("unshare net", unshare(CLONE_NEWNET));
    refused("unshare pid", unshare(CLONE_NEWPID));
    refused("unshare cgroup", unshare(CLONE_NEWCGROUP));
    refused("clone user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    refused("clone mount", syscall(SYS_clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0));
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    refused("clone3 user", syscall(SYS_clone3, &args, sizeof args));
    int ns = open("/proc/self/ns/net", O_RDONLY);
    refused("setns", syscall(SYS_setns, ns, 0));
    refused("mknod device", mknod("/tmp/kmem", S_IFCHR | 0600, makedev(1, 1)));
    refused("mknod disk", mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0)));
    union bpf_attr bpf = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    refused("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &bpf, sizeof bpf));
    struct perf_event_attr perf = {.type = PERF_TYPE_SOFTWARE, .size = sizeof perf};
    refused("perf_event_open", syscall(SYS_perf_event_open, &perf, 0, -1, -1, 0));
    refused("add_key", syscall(SYS_add_key, "user", "k", "v", 1, -2));
    refused("request_key", syscall(SYS_request_key, "user", "k", "", -2));
    refused("keyctl", syscall(SYS_keyctl, 0, -2, 1));
    char ring[128] = {0};
    refused("io_uring_setup", syscall(SYS_io_uring_setup, 1, ring));
    refused("userfaultfd", syscall(SYS_userfaultfd, 0));
    refused("userfaultfd user mode", syscall(SYS_userfaultfd, 1));
    refused("raw socket", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    refused("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
    refused("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    refused("crypto socket", socket(AF_ALG, SOCK_SEQPACKET, 0));
    refused("netfilter socket", socket(AF_NETLINK, SOCK_RAW, 12));
    refused("audit socket", socket(AF_NETLINK, SOCK_RAW, 9));
    struct timespec then = {.tv_sec = 1};
    refused("clock_settime", syscall(SYS_clock_settime, CLOCK_REALTIME, &then));
    struct timeval long_ago = {.tv_sec = 1};
    refused("settimeofday", syscall(SYS_settimeofday, &long_ago, 0));
    refused("sethostname", sethostname("x", 1));
    refused("setdomainname", setdomainname("x", 1));
    refused("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
    refused("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    refused("init_module", syscall(SYS_init_module, "", 0, ""));
    refused("finit_module", syscall(SYS_finit_module, 0, "", 0));
    refused("delete_module", syscall(SYS_delete_module, "x", 0));
    refused("swapon", syscall(SYS_swapon, "/tmp/x", 0));
    refused("acct", syscall(SYS_acct, "/tmp/x"));
    refused("quotactl", syscall(SYS_quotactl, 0, 0, 0, 0));
    refused("syslog", syscall(SYS_syslog, 3, ring, sizeof ring));
    refused("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, ring, 0));
    refused("name_to_handle_at", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", ring, ring, 0));
    refused("ptrace supervisor", ptrace(PTRACE_ATTACH, 1, 0, 0));
    refused("ptrace parent", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    struct iovec here = {ring, sizeof ring}, there = {ring, sizeof ring};
    refused("process_vm_readv", process_vm_readv(1, &here, 1, &there, 1, 0));
    refused("process_vm_writev", process_vm_writev(1, &here, 1, &there, 1, 0));
    refused("pidfd_getfd", syscall(SYS_pidfd_getfd, -1, 3, 0));
    refused("kcmp", syscall(SYS_kcmp, 1, getpid(), 0, 0, 0));
    struct rlimit none = {0, 0};
    refused("prlimit supervisor", prlimit(1, RLIMIT_CPU, &none, 0));
    refused("setuid root", setuid(0));
    refused("setgid root", setgid(0));
    gid_t root = 0;
    refused("setgroups", syscall(SYS_setgroups, 1, &root));
    uint32_t header[2] = {0x20080522, 0}, sets[6] = {~0u, ~0u, 0, 0, 0, 0};
    refused("capset", syscall(SYS_capset, header, sets));
    refused("priority", setpriority(PRIO_PROCESS, 0, -20));
    struct sched_param soon = {.sched_priority = 1};
    refused("real time", sched_setscheduler(0, SCHED_FIFO, &soon));
#ifdef SYS_iopl
    refused("iopl", syscall(SYS_iopl, 3));
    refused("ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
#endif
    printf("tried %d\n", tried);
    return 0;
}

/* A 32-bit call is not looked at by a filter of 64-bit ones: whoever makes one must end. */
static int compat(void) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
    printf("DID a 32-bit call: %ld\n", result);
#endif
    return 0;
}

/* Files that would give their caller more than it has. */
static int gain(void) {
    unsigned char caps[20] = {1, 0, 0, 2, 0xff, 0xff, 0xff, 0xff};
    int fd = open("/tmp/prize", O_CREAT | O_WRONLY, 0755);
    refused("file capability", syscall(SYS_fsetxattr, fd, "security.capability", caps, sizeof caps, 0));
    close(fd);
    refused("chown", chown("/tmp/prize", 0, 0));
    for (const char **path = (const char *[]){"/proc/self/exe", "/proc/1/exe", "/.quickcmd/init", "/proc/1/mem",
                                              "/dev/mem", "/dev/kmsg", 0};
         *path; path++) {
        int found = open(*path, O_WRONLY);
        tried++;
        if (found >= 0)
            printf("DID open %s for writing\n", *path);
    }
    printf("tried %d\n", tried);
    return 0;
}

static void *idle(void *nothing) {
    pause();
    return nothing;
}

static int threads(void) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    int made = 0;
    pthread_t one;
    while (made < 100000 && pthread_create(&one, &small, idle, 0) == 0)
        made++;
    printf("threads %d\n", made);
    fflush(stdout);
    pause();
    return 0;
}

static int zombies(void) {
    int made = 0;
    for (pid_t child; made < 100000 && (child = fork()) >= 0; made++)
        if (child == 0)
            _exit(0);
    printf("zombies %d\n", made);
    fflush(stdout);
    pause();
    return 0;
}

/* Works in a child that it does not want to hear of: the kernel tells nobody what such a child has used. */
static int unseen(void) {
    signal(SIGCHLD, SIG_IGN);
    if (fork() == 0) {
        struct timespec used;
        do
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        while (used.tv_sec < 1);
        _exit(0);
    }
    /* Until there is no child any more. */
    return wait(NULL) == -1 ? 0 : 1;
}

/* Takes memory that it uses, until there is none. */
static int heap(void) {
    for (char *more;;)
        if ((more = malloc(1 << 20)))
            memset(more, 1, 1 << 20);
    return 0;
}

/* Swaps a file with links to what is not its own, for as long as it lives. */
static int swap(void) {
    if (fork() || (setsid(), fork()))
        return 0;
    for (;;) {
        int fd = open("prize", O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW, 0644);
        if (fd >= 0) {
            if (write(fd, "mine\n", 5) < 0)
                _exit(1);
            close(fd);
        }
        unlink("prize");
        if (symlink("/etc/passwd", "prize") < 0)
            _exit(1);
        unlink("prize");
        if (link("/etc/passwd", "prize") == 0)
            printf("DID link to a file of the image\n");
        unlink("prize");
    }
}

int main(int count, char **words) {
    const char *verb = count > 1 ? words[1] : "";
    struct { const char *name; int (*run)(void); } verbs[] = {{"calls", calls}, {"compat", compat}, {"gain", gain},
        {"threads", threads}, {"zombies", zombies}, {"heap", heap}, {"swap", swap}, {"unseen", unseen}};
    for (size_t at = 0; at < sizeof verbs / sizeof *verbs; at++)
        if (!strcmp(verb, verbs[at].name))
            return verbs[at].run();
    return 64;
}
