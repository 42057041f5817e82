/*
 * Allocates without an end, as fast as it can in the given number of threads (the first argument)
 * or, with none, does nothing until it is told to quit.
 */
#include "target.h"

static void *work(void *unused)
{
    for (;;) {
        unsigned char *block = malloc(64);
        KEEP(block);
        free(block);
    }
    return unused;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0;
    pthread_t threads[16];
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            die("pthread_create");
    target_ready();
    for (;;)
        target_wait();
}
