/* Eight threads, 100,000 malloc and free pairs each; each keeps its number's worth of blocks. */
#include "target.h"

enum { THREADS = 8, PAIRS = 100000, SIZE = 72 };

static pthread_barrier_t start, done, over;

static NOINLINE int churn(int thread)
{
    int line = 0;
    for (int i = 0; i < PAIRS; i++) {
        char *block = malloc(SIZE); line = __LINE__;
        KEEP(block);
        /* The last ones of each thread stay: 1 of the first thread, 8 of the last. */
        if (i < PAIRS - (thread + 1))
            free(block);
    }
    return line;
}

static int churn_line;

static void *run(void *number)
{
    pthread_barrier_wait(&start);
    int line = churn((int)(intptr_t)number);
    if ((intptr_t)number == 0)
        churn_line = line;
    pthread_barrier_wait(&done);
    /* A thread that ends gives its stack back, which leaktop did not see being mapped. */
    pthread_barrier_wait(&over);
    return NULL;
}

int main(void)
{
    pthread_t thread[THREADS];
    pthread_barrier_init(&start, NULL, THREADS + 1);
    pthread_barrier_init(&done, NULL, THREADS + 1);
    pthread_barrier_init(&over, NULL, THREADS + 1);
    for (intptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, run, (void *)i))
            die("pthread_create");
    target_ready();
    target_wait();
    pthread_barrier_wait(&start);
    pthread_barrier_wait(&done);

    struct site *site = site_of("churn", churn_line);
    site->count = THREADS * (THREADS + 1) / 2;
    site->bytes = site->count * SIZE;
    site->allocs = (unsigned long long)THREADS * PAIRS;
    site->frees = site->allocs - site->count;
    target_truth();
    for (;;)
        target_wait();
}
