/*
 * Ends blocks in every way there is, after known times, and prints how many by band of lifetime:
 *   {"sure":[...],"unsure":[[low,high],...]}
 * Band 0 is below 2^20 ns, band i from 2^(19+i) ns on. A block's life is known from both sides by the
 * clock; where it may lie in either of two bands, since the target was held up, it is unsure. Of each
 * stack a block stays, so that it is shown.
 */
#include "target.h"
#include <sys/mman.h>
#include <time.h>

enum { BANDS = 24, SHIFT = 20, COUNT = 40, UNSURE_MAX = 4096 };

static unsigned long long sure[BANDS];
static int unsure[UNSURE_MAX][2], n_unsure;

static struct life {
    void *block;
    unsigned long long before, after; /* the call that allocated it */
} lives[COUNT + 1]; /* the last one stays */

static unsigned long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static int band_of(unsigned long long ns)
{
    int band = 0;
    for (ns >>= SHIFT; ns; ns >>= 1)
        band++;
    return band < BANDS ? band : BANDS - 1;
}

static void ended(const struct life *life, unsigned long long before, unsigned long long after)
{
    int low = band_of(before - life->after), high = band_of(after - life->before);
    if (low == high)
        sure[low]++;
    else if (n_unsure < UNSURE_MAX) {
        unsure[n_unsure][0] = low;
        unsure[n_unsure++][1] = high;
    }
}

/* What one call site does: 0 and 1 malloc and free or reallocate; 2 map and unmap, a half first. */
static NOINLINE void *take(int kind)
{
    if (kind < 2)
        return malloc(64);
    return mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *give(int kind, void *block)
{
    if (kind == 1)
        return realloc(block, 96);
    if (kind == 2)
        munmap((char *)block + PAGE, PAGE);
    else
        free(block);
    return NULL;
}

static void end_all(int kind)
{
    for (int i = 0; i < COUNT; i++) {
        struct life *life = &lives[i];
        if (kind == 2) /* a tail: the mapping goes on */
            give(2, life->block);
        if (kind == 1 && realloc(life->block, PTRDIFF_MAX)) /* fails: the block goes on */
            die("realloc");
        unsigned long long before = now();
        void *other = NULL;
        if (kind == 2)
            munmap(life->block, PAGE);
        else
            other = give(kind, life->block);
        ended(life, before, now());
        if (other && i) {
            struct life next = {other, before, now()};
            before = now();
            free(other);
            ended(&next, before, now());
        }
    }
}

static void hold(int kind, int band)
{
    for (int i = 0; i <= COUNT; i++) {
        lives[i].before = now();
        lives[i].block = take(kind);
        lives[i].after = now();
        KEEP(lives[i].block);
    }
    unsigned long long end = lives[COUNT].after + (band ? 3ULL << (SHIFT + band - 2) : 0);
    while (now() < end)
        ;
    end_all(kind);
}

int main(void)
{
    target_ready();
    target_wait();
    for (int kind = 0; kind < 3; kind++)
        for (int band = 3; band < 9; band += 1 + kind)
            hold(kind, band);
    hold(0, 0);
    target_print("{\"sure\":[");
    for (int i = 0; i < BANDS; i++)
        target_print("%s%llu", i ? "," : "", sure[i]);
    target_print("],\"unsure\":[");
    for (int i = 0; i < n_unsure; i++)
        target_print("%s[%d,%d]", i ? "," : "", unsure[i][0], unsure[i][1]);
    target_print("]}\n");
    for (;;)
        target_wait();
}
