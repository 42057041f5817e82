/* Times malloc/free pairs made from a known depth of calls: pairs DEPTH PAIRS. For each line on
 * standard input it makes one round and prints nanoseconds a pair. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

__attribute__((noinline)) static void *allocate(int depth)
{
    volatile char frame[32];
    frame[0] = (char)depth;
    void *block = depth > 1 ? allocate(depth - 1) : malloc(64);
    __asm__ volatile("" : : "r"(block), "r"(frame) : "memory");
    return block;
}

int main(int argc, char **argv)
{
    int depth = argc > 1 ? atoi(argv[1]) : 1;
    long pairs = argc > 2 ? atol(argv[2]) : 20000;
    char line[16];

    setbuf(stdout, NULL);
    printf("ready %d\n", getpid());
    while (fgets(line, sizeof line, stdin)) {
        double start = now();
        for (long i = 0; i < pairs; i++)
            free(allocate(depth));
        printf("%.1f\n", (now() - start) / (double)pairs);
    }
    return 0;
}
