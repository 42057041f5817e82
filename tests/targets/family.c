/*
 * "child" forks one that does what it is told through a pipe, and prints its PID; "leak COUNT SIZE"
 * keeps blocks, "child-leak COUNT SIZE" lets the child keep some. Each prints the truth of whoever
 * it was.
 */
#include "target.h"

static int to_child[2];

static NOINLINE void leak(int count, size_t size)
{
    for (int i = 0; i < count; i++) {
        void *block = malloc(size); HELD(size);
        KEEP(block);
    }
    target_truth();
}

static void obey(const char *line)
{
    int count = 0;
    size_t size = 0;
    if (sscanf(line, "leak %d %zu", &count, &size) == 2)
        leak(count, size);
}

static void tell_child(char *line)
{
    size_t length = strlen(line);
    line[length] = '\n';
    if (write(to_child[1], line, length + 1) != (ssize_t)length + 1)
        die("write");
}

static void fork_child(void)
{
    char line[256];
    if (pipe(to_child))
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child) {
        target_print("child %d\n", child);
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(to_child[0], STDIN_FILENO);
    n_sites = 0;
    for (;;)
        obey(target_read(line, sizeof line));
}

int main(void)
{
    signal(SIGCHLD, SIG_IGN);
    target_ready();
    for (;;) {
        char *line = target_wait();
        if (!strcmp(line, "child"))
            fork_child();
        else if (!strncmp(line, "child-", 6))
            tell_child(line + 6);
        else
            obey(line);
    }
}
