/*
 * Has an allocator of its own, my_malloc and my_free, beside the C library's, and uses both.
 */
#include "target.h"

static unsigned char arena[1 << 20];
static size_t used;

NOINLINE void *my_malloc(size_t size)
{
    void *block = arena + used;
    used += (size + 15) & ~(size_t)15;
    if (used > sizeof arena)
        die("my_malloc");
    KEEP(block);
    return block;
}

NOINLINE void my_free(void *block)
{
    KEEP(block);
}

static NOINLINE void leak_phase(void)
{
    for (int i = 0; i < 100; i++) {
        void *block = my_malloc(48); struct site *site = HELD(48);
        void *other = malloc(100);
        KEEP(other);
        if (i % 4 == 0) {
            my_free(block);
            freed(site, 48);
        }
    }
}

int main(void)
{
    target_ready();
    for (;;) {
        target_wait();
        leak_phase();
        target_truth();
    }
}
