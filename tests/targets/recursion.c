/* A block at each level of a recursion; the argument is its depth. */
#include "target.h"

static int depth;

static NOINLINE int descend(int level)
{
    void *block = malloc(32); HELD(32);
    KEEP(block);
    int below = level < depth ? descend(level + 1) : 0;
    /* Not a tail call: each level keeps its frame. */
    __asm__ volatile("" : "+r"(below));
    return below + 1;
}

static NOINLINE void work(void) { target_checksum = (unsigned)descend(1); }

int main(int argc, char **argv)
{
    depth = argc > 1 ? atoi(argv[1]) : 50;
    target_run(work);
}
