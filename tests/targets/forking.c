/* A child that allocates, and frees what its parent holds: neither is the parent's. */
#include "target.h"
#include <sys/wait.h>

static NOINLINE void *parent_leaks(void)
{
    void *block = malloc(777); HELD(777);
    return block;
}

static NOINLINE void child_works(void *block)
{
    free(block);
    for (int i = 0; i < 1000; i++) {
        void *own = malloc(50);
        KEEP(own);
    }
}

static NOINLINE void work(void)
{
    void *block = parent_leaks();
    int status;
    pid_t child = fork();
    if (child == 0) {
        child_works(block);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0 || status)
        die("fork");
    for (int i = 0; i < 4; i++)
        parent_leaks();
}

int main(void) { target_run(work); }
