/*
 * Does as it is told, one phase a line:
 *   leak COUNT SIZE    keep COUNT blocks of SIZE bytes
 *   drop               free all that is kept, newest first
 *   grow COUNT SIZE    reallocate the COUNT newest blocks to SIZE bytes
 *   churn COUNT SIZE   malloc and free COUNT times
 *   exit STATUS        end at once
 * and prints the truth after each. The first argument says how many blocks of 1000 bytes to take
 * before it is ready, which nobody can have seen.
 */
#include "target.h"

enum { MAX_BLOCKS = 2000000 };

static struct kept {
    void *block;
    size_t size;
    struct site *site; /* NULL: taken before anyone looked */
} kept[MAX_BLOCKS];
static int n_kept;

static NOINLINE void leak_phase(int count, size_t size)
{
    for (int i = 0; i < count; i++) {
        void *block = malloc(size); struct site *site = HELD(size);
        if (!block || n_kept == MAX_BLOCKS)
            die("malloc");
        kept[n_kept++] = (struct kept){block, size, site};
    }
}

static NOINLINE void early_phase(int count)
{
    for (int i = 0; i < count; i++)
        kept[n_kept++] = (struct kept){malloc(1000), 1000, NULL};
}

static NOINLINE void drop_phase(void)
{
    while (n_kept) {
        struct kept *last = &kept[--n_kept];
        free(last->block);
        if (last->site)
            freed(last->site, last->size);
    }
}

static NOINLINE void grow_phase(int count, size_t size)
{
    for (int i = 0; i < count; i++) {
        struct kept *last = &kept[n_kept - 1 - i];
        last->block = realloc(last->block, size); struct site *site = HELD(size);
        if (last->site)
            freed(last->site, last->size);
        last->size = size;
        last->site = site;
    }
}

static NOINLINE void churn_phase(int count, size_t size)
{
    for (int i = 0; i < count; i++) {
        unsigned char *block = malloc(size); struct site *site = HELD(size);
        block[0] = (unsigned char)i;
        KEEP(block);
        /* Something for the test to see that the target was not disturbed. */
        target_checksum = target_checksum * 31 + block[0];
        free(block);
        freed(site, size);
    }
}

int main(int argc, char **argv)
{
    early_phase(argc > 1 ? atoi(argv[1]) : 0);
    target_ready();
    for (;;) {
        char phase[16];
        int count = 0;
        size_t size = 0;
        sscanf(target_wait(), "%15s %d %zu", phase, &count, &size);
        if (!strcmp(phase, "leak"))
            leak_phase(count, size);
        else if (!strcmp(phase, "drop"))
            drop_phase();
        else if (!strcmp(phase, "grow"))
            grow_phase(count, size);
        else if (!strcmp(phase, "churn"))
            churn_phase(count, size);
        else if (!strcmp(phase, "exit"))
            _exit(count);
        target_truth();
    }
}
