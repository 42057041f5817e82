/* Times malloc/free pairs made from a known depth of calls: pairs DEPTH PAIRS [THREADS]. For each
 * line on standard input it makes one round, PAIRS in each thread, and prints nanoseconds a pair of
 * all threads together. Without THREADS the main thread makes them. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 64 };

static int depth = 1;
static long pairs = 20000;
static pthread_barrier_t begin;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

__attribute__((noinline)) static void *allocate(int left)
{
    volatile char frame[32];
    frame[0] = (char)left;
    void *block = left > 1 ? allocate(left - 1) : malloc(64);
    __asm__ volatile("" : : "r"(block), "r"(frame) : "memory");
    return block;
}

static void work(void)
{
    for (long i = 0; i < pairs; i++)
        free(allocate(depth));
}

static void *thread(void *unused)
{
    free(allocate(depth)); /* glibc makes the thread's arena now, not in the time measured */
    pthread_barrier_wait(&begin);
    work();
    return unused;
}

static double run(int threads)
{
    pthread_t ids[THREADS_MAX];
    double start = now();

    if (threads == 0) {
        work();
        return now() - start;
    }
    pthread_barrier_init(&begin, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, thread, NULL))
            abort();
    start = now(); /* before the last one can begin */
    pthread_barrier_wait(&begin);
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    return now() - start;
}

int main(int argc, char **argv)
{
    char line[16];
    int threads = argc > 3 ? atoi(argv[3]) : 0;

    depth = argc > 1 ? atoi(argv[1]) : depth;
    pairs = argc > 2 ? atol(argv[2]) : pairs;
    if (threads < 0 || threads > THREADS_MAX)
        return 2;
    setbuf(stdout, NULL);
    printf("ready %d\n", getpid());
    while (fgets(line, sizeof line, stdin)) {
        double passed = run(threads);
        printf("%.1f\n", passed / ((double)pairs * (threads ? threads : 1)));
    }
    return 0;
}
