/*
 * allocating ROUNDS: an allocation-heavy program. Told "go", it runs one of two loops and prints
 * nanoseconds of processor time a step:
 *   churn    malloc and free of 16 to 4096 bytes in a working set of 2,000 blocks, each written
 *            to; now and then a larger one, which malloc maps
 *   faults   the worst case: mmap of 64 pages, a write to each, munmap
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKS = 2000, PAGES = 64, PAGE = 4096 };

static unsigned seed = 1;

static unsigned any(void)
{
    seed = seed * 1664525 + 1013904223;
    return seed >> 8;
}

static __attribute__((noinline)) void churn(int steps)
{
    static char *blocks[BLOCKS];
    for (int i = 0; i < steps; i++) {
        unsigned at = any() % BLOCKS, size = 16 + any() % 4080;
        if (any() % 10000 == 0)
            size = 200000;
        free(blocks[at]);
        blocks[at] = malloc(size);
        memset(blocks[at], 1, size);
    }
}

static __attribute__((noinline)) void faults(int steps)
{
    for (int i = 0; i < steps / PAGES; i++) {
        char *pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int page = 0; page < PAGES; page++)
            pages[page * PAGE] = 1;
        munmap(pages, PAGES * PAGE);
    }
}

int main(int argc, char **argv)
{
    int steps = argc > 1 ? atoi(argv[1]) : 1000000;
    char line[64];
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        struct timespec start, end;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
        (*line == 'f' ? faults : churn)(steps);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
        printf("%.1f\n", ((end.tv_sec - start.tv_sec) * 1e9 + end.tv_nsec - start.tv_nsec) / steps);
        fflush(stdout);
    }
    return 0;
}
