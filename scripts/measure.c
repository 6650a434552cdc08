// measure: times container runtimes against each other, in turns, so that a busy moment hits them all.
//
//     measure [-n ROUNDS] [-w WARMUP] [-g GAP_MS] -s STATE run|steps|enter|control|crowd BUNDLE NAME=PROGRAM...
//     measure exec PROGRAM ARG...          only the preparation below, then PROGRAM
//
// run:   PROGRAM --root STATE/NAME run --bundle BUNDLE ID
// enter: PROGRAM --root STATE/NAME exec ID true, in a container that is made before and deleted afterwards
// control: state, pause, resume of such a container
// crowd: CROWD containers created at once, from the first process begun to the last one ended
// steps: create, start, kill KILL, (the end of the container's process), delete; each is also reported by itself
//
// One line goes to stdout for each NAME and verb, with tabs between: name, verb, rounds, then in microseconds minimum,
// median and 90th percentile of the wall time, the median processor time, and in kB the highest peak memory that a
// single process of the command had (wait4(2): it counts waited-for descendants too).
//
// It is small, static C because Linux hands the peak memory of whoever calls exec on to the new program: a larger
// parent would be seen in the figures.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 16, VERBS = 5, CROWD = 100 };

struct series {
    long *wall, *cpu, peak;
};
struct entrant {
    char *name, *program, state[512], id[64];
    struct series verb[VERBS];
};

static const char *const RUN[] = {"run"};
static const char *const ENTER[] = {"exec"};
static const char *const CONTROL[] = {"state", "pause", "resume"};
static const char *const CROWDED[] = {"create many"};
static const char *const STEPS[] = {"create", "start", "kill", "delete", "all four"};

static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "measure: %s: %s\n", what, why);
    exit(1);
}

static long microseconds(struct timeval t) { return t.tv_sec * 1000000L + t.tv_usec; }

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

// crun before 1.9 gives up where it may not raise RLIMIT_MEMLOCK (root without CAP_SYS_RESOURCE), though the kernel
// has not counted BPF programs against it since 5.11. There that one call is answered with success, for all alike;
// calls that a filter always allows are not slowed down (seccomp's bitmap, 5.11).
static void let_memlock_be_raised(void)
{
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    if (setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0)
        return;
#define FIELD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
    struct sock_filter program[] = {
        FIELD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 0, 5),
        FIELD(args[1]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RLIMIT_MEMLOCK, 0, 3),
        FIELD(args[2]), // no new limit: a question
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0)
        give_up("seccomp", strerror(errno));
}

static pid_t start(char *const argv[])
{
    static posix_spawn_file_actions_t quiet;
    static int prepared;
    if (!prepared++) {
        posix_spawn_file_actions_init(&quiet);
        posix_spawn_file_actions_addopen(&quiet, 0, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    }
    pid_t pid;
    int refused = posix_spawn(&pid, argv[0], &quiet, NULL, argv, environ);
    if (refused)
        give_up(argv[0], strerror(refused));
    return pid;
}

static void finish(pid_t pid, const char *program, const char *verb, struct rusage *usage)
{
    int status;
    // Only this child: the container's process, ours once the runtime has ended, must not be taken for it.
    while (wait4(pid, &status, 0, usage) < 0)
        if (errno != EINTR)
            give_up(program, strerror(errno));
    if (status != 0) {
        fprintf(stderr, "measure: %s %s ended with %s %d\n", program, verb,
                WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        exit(1);
    }
}

// Runs a command to its end; its wall time, and what else it cost in *usage.
static long run(char *const argv[], struct rusage *usage)
{
    long begin = now();
    finish(start(argv), argv[0], argv[3], usage);
    return now() - begin;
}

static void note(struct series *series, int round, long wall, const struct rusage *usage)
{
    if (round < 0)
        return; // warming up
    series->wall[round] = wall;
    series->cpu[round] = microseconds(usage->ru_utime) + microseconds(usage->ru_stime);
    if (usage->ru_maxrss > series->peak)
        series->peak = usage->ru_maxrss;
}

static void one_run(struct entrant *e, char *bundle, int round)
{
    struct rusage usage;
    char *argv[] = {e->program, "--root", e->state, "run", "--bundle", bundle, "sc-bench", NULL};
    long took = run(argv, &usage);
    note(&e->verb[0], round, took, &usage);
}

// One command, for its effect.
static void once(char *const argv[])
{
    struct rusage usage;
    run(argv, &usage);
}

static void one_exec(struct entrant *e, char *unused, int round)
{
    (void)unused;
    struct rusage usage;
    char *argv[] = {e->program, "--root", e->state, "exec", e->id, "true", NULL};
    long took = run(argv, &usage);
    note(&e->verb[0], round, took, &usage);
}

static void furnish(struct entrant *e, char *bundle)
{
    once((char *[]){e->program, "--root", e->state, "create", "--bundle", bundle, e->id, NULL});
    once((char *[]){e->program, "--root", e->state, "start", e->id, NULL});
}

static void clear(struct entrant *e)
{
    once((char *[]){e->program, "--root", e->state, "kill", e->id, "KILL", NULL});
    while (waitpid(-1, NULL, 0) < 0 && errno == EINTR)
        ; // its init, whose reaper we are
    once((char *[]){e->program, "--root", e->state, "delete", e->id, NULL});
}

static void four_steps(struct entrant *e, char *bundle, int round)
{
    char *argvs[][8] = {
        {e->program, "--root", e->state, "create", "--bundle", bundle, "sc-bench", NULL},
        {e->program, "--root", e->state, "start", "sc-bench", NULL},
        {e->program, "--root", e->state, "kill", "sc-bench", "KILL", NULL},
        {e->program, "--root", e->state, "delete", "sc-bench", NULL},
    };
    struct rusage usage, sum = {0};
    long begin = now();
    for (int step = 0; step < 4; step++) {
        if (step == 3)
            while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
                ; // we are its reaper: a zombie counts as running for some
        long took = run(argvs[step], &usage);
        note(&e->verb[step], round, took, &usage);
        timeradd(&sum.ru_utime, &usage.ru_utime, &sum.ru_utime);
        timeradd(&sum.ru_stime, &usage.ru_stime, &sum.ru_stime);
        if (usage.ru_maxrss > sum.ru_maxrss)
            sum.ru_maxrss = usage.ru_maxrss;
    }
    note(&e->verb[4], round, now() - begin, &sum);
}

static void three_controls(struct entrant *e, char *unused, int round)
{
    (void)unused;
    for (int verb = 0; verb < 3; verb++) {
        struct rusage usage;
        char *argv[] = {e->program, "--root", e->state, (char *)CONTROL[verb], e->id, NULL};
        long took = run(argv, &usage);
        note(&e->verb[verb], round, took, &usage);
    }
}

static void one_crowd(struct entrant *e, char *bundle, int round)
{
    static char ids[CROWD][32];
    pid_t makers[CROWD];
    struct rusage sum = {0};
    long begin = now();
    for (int i = 0; i < CROWD; i++) {
        snprintf(ids[i], sizeof ids[i], "sc-bench-%d", i);
        char *argv[] = {e->program, "--root", e->state, "create", "--bundle", bundle, ids[i], NULL};
        makers[i] = start(argv);
    }
    for (int i = 0; i < CROWD; i++) {
        struct rusage usage;
        finish(makers[i], e->program, "create", &usage);
        timeradd(&sum.ru_utime, &usage.ru_utime, &sum.ru_utime);
        timeradd(&sum.ru_stime, &usage.ru_stime, &sum.ru_stime);
        if (usage.ru_maxrss > sum.ru_maxrss)
            sum.ru_maxrss = usage.ru_maxrss;
    }
    note(&e->verb[0], round, now() - begin, &sum);
    for (int i = 0; i < CROWD; i++)
        once((char *[]){e->program, "--root", e->state, "delete", "--force", ids[i], NULL});
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
}

static int ascending(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "exec") == 0) {
        let_memlock_be_raised();
        execvp(argv[2], argv + 2);
        give_up(argv[2], strerror(errno));
    }
    int rounds = 100, warmup = 3, gap = 0, option;
    const char *state = NULL;
    while ((option = getopt(argc, argv, "n:w:g:s:")) != -1)
        switch (option) {
        case 'n': rounds = atoi(optarg); break;
        case 'w': warmup = atoi(optarg); break;
        case 'g': gap = atoi(optarg); break;
        case 's': state = optarg; break;
        default: return 2;
        }
    int many = argc - optind - 2;
    if (many < 1 || many > MOST || rounds < 1 || !state)
        give_up("usage", "[-n ROUNDS] [-w WARMUP] [-g GAP_MS] -s STATE run|steps|enter|control|crowd BUNDLE NAME=PROGRAM...");
    static const struct mode {
        const char *name;
        void (*measured)(struct entrant *, char *, int);
        const char *const *verbs;
        int many, furnished;
    } modes[] = {
        {"run", one_run, RUN, 1, 0},           {"steps", four_steps, STEPS, 5, 0},     {"enter", one_exec, ENTER, 1, 1},
        {"control", three_controls, CONTROL, 3, 1}, {"crowd", one_crowd, CROWDED, 1, 0}, {0},
    };
    const struct mode *mode = modes;
    while (mode->name && strcmp(mode->name, argv[optind]) != 0)
        mode++;
    if (!mode->name)
        give_up(argv[optind], "not run, steps, enter, control or crowd");
    char *bundle = argv[optind + 1];
    int verbs = mode->many;

    static struct entrant entrants[MOST];
    for (int i = 0; i < many; i++) {
        struct entrant *e = &entrants[i];
        e->name = argv[optind + 2 + i];
        e->program = strchr(e->name, '=');
        if (!e->program)
            give_up(e->name, "not NAME=PROGRAM");
        *e->program++ = 0;
        snprintf(e->state, sizeof e->state, "%s/%s", state, e->name);
        snprintf(e->id, sizeof e->id, "sc-bench-%s", e->name);
        for (int v = 0; v < verbs; v++) {
            e->verb[v].wall = calloc(rounds, sizeof(long));
            e->verb[v].cpu = calloc(rounds, sizeof(long));
        }
    }

    let_memlock_be_raised();
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (int i = 0; mode->furnished && i < many; i++)
        furnish(&entrants[i], bundle);
    for (int round = -warmup; round < rounds; round++)
        for (int i = 0; i < many; i++) {
            // Another one begins each round: who comes after the slowest has no advantage or harm from it.
            struct entrant *e = &entrants[(i + round + warmup) % many];
            if (gap)
                usleep(gap * 1000);
            alarm(60); // nothing here may hang for ever
            mode->measured(e, bundle, round);
        }
    for (int i = 0; mode->furnished && i < many; i++)
        clear(&entrants[i]);

    for (int i = 0; i < many; i++)
        for (int v = 0; v < verbs; v++) {
            struct series *s = &entrants[i].verb[v];
            qsort(s->wall, rounds, sizeof(long), ascending);
            qsort(s->cpu, rounds, sizeof(long), ascending);
            printf("%s\t%s\t%d\t%ld\t%ld\t%ld\t%ld\t%ld\n", entrants[i].name, mode->verbs[v], rounds,
                   s->wall[0], s->wall[rounds / 2], s->wall[rounds * 9 / 10], s->cpu[rounds / 2], s->peak);
        }
    return 0;
}
