/* Blocks so big that malloc maps and unmaps memory for each: only the malloc counts. */
#include "target.h"

enum { BLOCKS = 8, SIZE = 3000001 };

static NOINLINE void leak_big(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        char *block = malloc(SIZE); struct site *site = HELD(SIZE);
        if (!block)
            die("malloc");
        block[0] = block[SIZE - 1] = 1;
        KEEP(block);
        if (i % 2) {
            free(block);
            freed(site, SIZE);
        }
    }
}

static NOINLINE void *map_big(struct site **site)
{
    void *block = malloc(SIZE); *site = HELD(SIZE);
    return block;
}

/* realloc of such a block is mremap inside. */
static NOINLINE void grow_big(void)
{
    struct site *old;
    void *block = map_big(&old);
    block = realloc(block, 4 * SIZE); HELD(4 * SIZE);
    freed(old, SIZE);
    KEEP(block);
}

static NOINLINE void work(void)
{
    leak_big();
    grow_big();
}

int main(void) { target_run(work); }
