// The floor: what a container with runc's default config.json costs the kernel, and nothing else.
//
//     floor --root STATE run --bundle BUNDLE ID          runs /bin/true
//     floor --root STATE create --bundle BUNDLE ID       prepares /bin/sleep 1000;  then start, kill, delete
//     floor --root STATE exec ID true                    runs /bin/true in it
//
// The same effects as a runtime's, by the cheapest calls known, with every value hard-coded: config.json is read but
// not parsed, nothing is checked, locked or undone, and an error is an exit. A lower bound for sc-runtime, no runtime.
// It needs Linux 5.12 (mount_setattr) and cgroup v2 on /sys/fs/cgroup.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

// The C library of Debian 12 has these numbers but not all of these names.
#define CLONE_INTO_CGROUP_ 0x200000000ULL
#define MS_REC_ 0x4000
#define MS_SLAVE_ (1 << 19)
#define MNT_DETACH_ 2
#define KEYCTL_JOIN_SESSION_KEYRING_ 1

static const char SEALED[] = "floor (sealed)";
static const char *root, *bundle, *id;
static char record[4096], record_new[4096], fifo[4096], cgroup[4096];

static long must(long result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}
#define MUST(call) must((call), #call)
#define sys(name, ...) MUST(syscall(SYS_##name, __VA_ARGS__))

// --- in front of the house -------------------------------------------------------------------------------------------

// A runtime executes itself from a read-only clone of its own mount, so that no container can write to the program
// through /proc/PID/exe (CVE-2019-5736).
static void seal(char **argv)
{
    if (strcmp(argv[0], SEALED) == 0)
        return;
    argv[0] = (char *)SEALED;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int self = sys(open_tree, AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    sys(mount_setattr, self, "", AT_EMPTY_PATH, &attr, sizeof attr);
    sys(execveat, self, "", argv, environ, AT_EMPTY_PATH);
}

// runc's default devices: mknod of anything; null, zero, full, random, urandom, tty, ptmx, and pts/*; nothing else.
static void allow_devices(int cgroup_fd)
{
#define LOAD(reg, at) {.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = reg, .src_reg = BPF_REG_1, .off = at}
#define IS_NOT(reg, value, skip) {.code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = reg, .off = skip, .imm = value}
#define RETURN(value) {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = value}, {.code = BPF_JMP | BPF_EXIT}
#define ALLOW(major, minor) IS_NOT(BPF_REG_4, major, 3), IS_NOT(BPF_REG_5, minor, 2), RETURN(1)
    struct bpf_insn program[] = {
        LOAD(BPF_REG_2, 0), // access << 16 | type
        {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_3, .src_reg = BPF_REG_2},
        {.code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = BPF_REG_3, .imm = 16},
        {.code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = BPF_REG_2, .imm = 0xffff},
        LOAD(BPF_REG_4, 4),
        LOAD(BPF_REG_5, 8),
        IS_NOT(BPF_REG_3, BPF_DEVCG_ACC_MKNOD, 2), RETURN(1),
        {.code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = BPF_REG_2, .off = 2, .imm = BPF_DEVCG_DEV_CHAR}, RETURN(0),
        ALLOW(1, 3), ALLOW(1, 5), ALLOW(1, 7), ALLOW(1, 8), ALLOW(1, 9), ALLOW(5, 0), ALLOW(5, 2),
        IS_NOT(BPF_REG_4, 136, 2), RETURN(1),
        RETURN(0),
    };
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .insns = (uintptr_t)program,
        .insn_cnt = sizeof program / sizeof *program,
        .license = (uintptr_t) "Apache-2.0",
    };
    int fd = sys(bpf, BPF_PROG_LOAD, &load, sizeof load);
    union bpf_attr attach = {
        .target_fd = cgroup_fd,
        .attach_bpf_fd = fd,
        .attach_type = BPF_CGROUP_DEVICE,
        .attach_flags = BPF_F_ALLOW_MULTI,
    };
    sys(bpf, BPF_PROG_ATTACH, &attach, sizeof attach);
    close(fd);
}

static void write_record(int pid)
{
    char text[512];
    int length = snprintf(text, sizeof text, "%d {\"ociVersion\":\"1.2.0\",\"id\":\"%s\",\"status\":\"created\",\"bundle\":\"%s\"}", pid, id, bundle);
    int fd = MUST(open(record_new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    MUST(write(fd, text, length));
    close(fd);
    MUST(rename(record_new, record));
}

static int read_record(void)
{
    char text[512] = "";
    int fd = MUST(open(record, O_RDONLY | O_CLOEXEC));
    MUST(read(fd, text, sizeof text - 1));
    close(fd);
    return atoi(text);
}

static void remove_traces(void)
{
    MUST(rmdir(cgroup));
    MUST(unlink(record));
    char directory[4096];
    snprintf(directory, sizeof directory, "%s/%s", root, id);
    MUST(rmdir(directory));
}

// --- inside ----------------------------------------------------------------------------------------------------------

struct parameter { const char *key, *value; };

static void mount_new(int rootfs, const char *type, const char *source, const char *at, unsigned attr, const struct parameter *parameters)
{
    int fs = sys(fsopen, type, FSOPEN_CLOEXEC);
    sys(fsconfig, fs, FSCONFIG_SET_STRING, "source", source, 0);
    for (; parameters && parameters->key; parameters++)
        sys(fsconfig, fs, FSCONFIG_SET_STRING, parameters->key, parameters->value, 0);
    sys(fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    int mount = sys(fsmount, fs, FSMOUNT_CLOEXEC, attr);
    sys(move_mount, mount, "", rootfs, at, MOVE_MOUNT_F_EMPTY_PATH);
    close(mount);
    close(fs);
}

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV)
#define PARAMETERS(...) ((struct parameter[]){__VA_ARGS__, {0}})

static int build_rootfs(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/rootfs", bundle);
    sys(mount, NULL, "/", NULL, MS_REC_ | MS_SLAVE_, NULL);
    int rootfs = sys(open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    sys(move_mount, rootfs, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);

    mount_new(rootfs, "proc", "proc", "proc", 0, NULL);
    mount_new(rootfs, "tmpfs", "tmpfs", "dev", MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME, PARAMETERS({"mode", "755"}, {"size", "65536k"}));
    int dev = MUST(openat(rootfs, "dev", O_PATH | O_DIRECTORY | O_CLOEXEC));
    const char *const directories[] = {"pts", "shm", "mqueue"};
    for (int i = 0; i < 3; i++)
        MUST(mkdirat(dev, directories[i], 0755));
    mount_new(dev, "devpts", "devpts", "pts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
              PARAMETERS({"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}));
    mount_new(dev, "tmpfs", "shm", "shm", QUIET, PARAMETERS({"mode", "1777"}, {"size", "65536k"}));
    mount_new(dev, "mqueue", "mqueue", "mqueue", QUIET, NULL);
    mount_new(rootfs, "sysfs", "sysfs", "sys", QUIET | MOUNT_ATTR_RDONLY, NULL);
    mount_new(rootfs, "cgroup2", "cgroup", "sys/fs/cgroup", QUIET | MOUNT_ATTR_RDONLY, NULL);

    const struct { const char *name; int major, minor; } devices[] = {
        {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
    };
    umask(0);
    for (int i = 0; i < 6; i++)
        MUST(mknodat(dev, devices[i].name, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
    const char *const links[][2] = {
        {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
        {"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}, {"pts/ptmx", "ptmx"},
    };
    for (int i = 0; i < 6; i++)
        MUST(symlinkat(links[i][0], dev, links[i][1]));
    umask(022);
    close(dev);
    return rootfs;
}

// A path that config.json names comes from the container's file system: no symbolic link of it may lead outside.
static int within(int rootfs, const char *path)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    return syscall(SYS_openat2, rootfs, path, &how, sizeof how);
}

static void hide_paths(int rootfs)
{
    const char *const readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    const char *const masked[] = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                                  "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"};
    struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
    for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        int at = within(rootfs, readonly[i]);
        if (at < 0)
            continue; // not on this kernel
        int tree = sys(open_tree, at, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
        sys(mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &ro, sizeof ro);
        sys(move_mount, tree, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        close(tree);
        close(at);
    }
    int empty = -1;
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
        int at = within(rootfs, masked[i]), tree;
        if (at < 0)
            continue;
        struct stat st;
        MUST(fstat(at, &st));
        if (S_ISDIR(st.st_mode)) {
            if (empty < 0) {
                // One empty tmpfs serves all of them.
                int fs = sys(fsopen, "tmpfs", FSOPEN_CLOEXEC);
                sys(fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
                empty = sys(fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
                close(fs);
            }
            tree = sys(open_tree, empty, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        } else {
            tree = sys(open_tree, rootfs, "dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        }
        sys(move_mount, tree, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        close(tree);
        close(at);
    }
    if (empty >= 0)
        close(empty);
}

static void pivot(int rootfs)
{
    struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
    sys(mount_setattr, rootfs, "", AT_EMPTY_PATH, &ro, sizeof ro);
    MUST(fchdir(rootfs));
    sys(pivot_root, ".", ".");
    sys(umount2, ".", MNT_DETACH_);
    MUST(chdir("/"));
    close(rootfs);
}

static void loopback_up(void)
{
    int fd = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    MUST(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
}

static void become_the_user(void)
{
    const uint64_t keep = 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE | 1 << CAP_AUDIT_WRITE;
    struct rlimit files = {1024, 1024};
    MUST(setrlimit(RLIMIT_NOFILE, &files));
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (!(keep >> cap & 1))
            prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); // refused where we never had it
    MUST(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
    MUST(setgroups(0, NULL));
    sys(setresgid, 0, 0, 0);
    sys(setresuid, 0, 0, 0);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{keep, keep, keep}, {0}};
    sys(capset, &header, data);
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (keep >> cap & 1)
            MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static void become(char *path, char *argument)
{
    char *const program[] = {path, argument, NULL};
    char *const environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root", NULL};
    MUST(execve(path, program, environment));
}

static void init(int parent, int waits)
{
    // The container's root is on the far side of pivot_root by the time `start` is awaited.
    int gate = waits ? MUST(open(fifo, O_PATH | O_CLOEXEC)) : -1;
    MUST(setsid());
    sys(keyctl, KEYCTL_JOIN_SESSION_KEYRING_, "_ses.floor");
    MUST(sethostname("runc", 4));
    loopback_up();
    int rootfs = build_rootfs();
    hide_paths(rootfs);
    pivot(rootfs);
    become_the_user();
    sys(close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
    char byte = 'r';
    MUST(write(parent, &byte, 1));
    if (read(parent, &byte, 1) != 1)
        _exit(1);
    if (waits) {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", gate);
        int fd = MUST(open(path, O_WRONLY | O_CLOEXEC));
        MUST(write(fd, "0", 1));
    }
    become(waits ? "/bin/sleep" : "/bin/true", waits ? "1000" : NULL);
}

// --- the verbs -------------------------------------------------------------------------------------------------------

static int make_container(int waits)
{
    char path[4096], config[16384];
    snprintf(path, sizeof path, "%s/config.json", bundle);
    int fd = MUST(open(path, O_RDONLY | O_CLOEXEC));
    MUST(read(fd, config, sizeof config));
    close(fd);

    mkdir(root, 0700);
    snprintf(path, sizeof path, "%s/%s", root, id);
    MUST(mkdir(path, 0700));
    if (waits)
        MUST(mkfifo(fifo, 0600));
    MUST(mkdir(cgroup, 0755));
    int cgroup_fd = MUST(open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC));
    int ends[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));

    int pidfd = -1;
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_PIDFD | CLONE_INTO_CGROUP_,
        .pidfd = (uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup_fd,
    };
    int pid = sys(clone3, &args, sizeof args);
    if (pid == 0) {
        close(ends[0]);
        init(ends[1], waits);
    }
    close(ends[1]);
    // While init builds its root file system.
    allow_devices(cgroup_fd);
    write_record(pid);
    char byte;
    if (read(ends[0], &byte, 1) != 1)
        exit(1);
    MUST(write(ends[0], &byte, 1));
    return pidfd;
}

static int run(void)
{
    siginfo_t info;
    MUST(waitid(P_PIDFD, make_container(0), &info, WEXITED));
    remove_traces();
    return info.si_status;
}

static int start(void)
{
    char byte;
    int fd = MUST(open(fifo, O_RDONLY | O_CLOEXEC));
    MUST(read(fd, &byte, 1));
    MUST(unlink(fifo));
    return 0;
}

// One more process: into the cgroup and the pid namespace by the clone, into the rest by itself.
static int enter(void)
{
    int pidfd = sys(pidfd_open, read_record(), 0);
    int cgroup_fd = MUST(open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC));
    MUST(setns(pidfd, CLONE_NEWPID));
    int child = -1;
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } args = {
        .flags = CLONE_PIDFD | CLONE_INTO_CGROUP_,
        .pidfd = (uintptr_t)&child,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup_fd,
    };
    if (sys(clone3, &args, sizeof args) == 0) {
        MUST(setsid());
        MUST(setns(pidfd, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP));
        sys(keyctl, KEYCTL_JOIN_SESSION_KEYRING_, "_ses.floor");
        become_the_user();
        sys(close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
        become("/bin/true", NULL);
    }
    siginfo_t info;
    MUST(waitid(P_PIDFD, child, &info, WEXITED));
    return info.si_status;
}

static int kill_container(void)
{
    int pidfd = sys(pidfd_open, read_record(), 0);
    sys(pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 5 || strcmp(argv[1], "--root") != 0) {
        fprintf(stderr, "usage: floor --root DIR run|create|start|exec|kill|delete [--bundle DIR] ID ...\n");
        return 2;
    }
    const char *verb = argv[3];
    int makes = strcmp(verb, "run") == 0 || strcmp(verb, "create") == 0;
    if (makes || strcmp(verb, "exec") == 0)
        seal(argv);
    root = argv[2];
    bundle = makes && argc > 6 ? argv[5] : "";
    id = argv[makes && argc > 6 ? 6 : 4];
    snprintf(record, sizeof record, "%s/%s/state.json", root, id);
    snprintf(record_new, sizeof record_new, "%s/%s/.state.json", root, id);
    snprintf(fifo, sizeof fifo, "%s/%s/start", root, id);
    snprintf(cgroup, sizeof cgroup, "/sys/fs/cgroup/%s", id);

    if (strcmp(verb, "run") == 0)
        return run();
    if (strcmp(verb, "create") == 0)
        return make_container(1) < 0;
    if (strcmp(verb, "start") == 0)
        return start();
    if (strcmp(verb, "exec") == 0)
        return enter();
    if (strcmp(verb, "kill") == 0)
        return kill_container();
    remove_traces();
    return 0;
}
