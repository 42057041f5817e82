/*
 * Says where its blocks lie. Does as it is told, one phase a line:
 *   hold COUNT SIZE    keep COUNT blocks of SIZE bytes, the next of SIZE + 1, and so on
 *   change             free the first block, reallocate the second, free that
 *   thread             keep a block that another thread allocates
 *   churn COUNT        malloc and free COUNT times
 * and prints a line of JSON after each: what happened, in order, as [kind, address, size, thread].
 */
#include "target.h"

#include <sys/syscall.h>

enum { MAX_BLOCKS = 10000, MAX_EVENTS = 10000 };

static char *blocks[MAX_BLOCKS];
static size_t sizes[MAX_BLOCKS];
static int n_blocks;

static struct {
    const char *kind;
    void *address;
    size_t size;
    long thread;
} happened[MAX_EVENTS];
static int n_happened;

static void note(const char *kind, void *address, size_t size)
{
    if (n_happened == MAX_EVENTS)
        abort();
    happened[n_happened].kind = kind;
    happened[n_happened].address = address;
    happened[n_happened].size = size;
    happened[n_happened++].thread = syscall(SYS_gettid);
}

static void tell(void)
{
    target_print("[");
    for (int i = 0; i < n_happened; i++)
        target_print("%s[\"%s\",%llu,%zu,%ld]", i ? "," : "", happened[i].kind,
                     (unsigned long long)happened[i].address, happened[i].size,
                     happened[i].thread);
    target_print("]\n");
    n_happened = 0;
}

static NOINLINE void hold(size_t size)
{
    char *block = malloc(size);
    if (!block || n_blocks == MAX_BLOCKS)
        die("malloc");
    snprintf(block, size, "block %d\t\x1b[31m", n_blocks);
    blocks[n_blocks] = block;
    sizes[n_blocks++] = size;
    note("alloc", block, size);
}

static NOINLINE void hold_phase(int count, size_t size)
{
    for (int i = 0; i < count; i++)
        hold(size + i);
}

static NOINLINE void *another(void *ignored)
{
    (void)ignored;
    hold(777);
    return NULL;
}

static NOINLINE void change_phase(void)
{
    void *moved;
    note("free", blocks[0], sizes[0]);
    free(blocks[0]);
    note("free", blocks[1], sizes[1]);
    moved = realloc(blocks[1], 5000);
    note("alloc", moved, 5000);
    note("free", moved, 5000);
    free(moved);
}

static NOINLINE void churn_phase(int count)
{
    for (int i = 0; i < count; i++) {
        void *block = malloc(32);
        KEEP(block);
        free(block);
    }
}

int main(void)
{
    int count;
    size_t size;
    char *line;
    target_ready();
    for (;;) {
        line = target_wait();
        if (sscanf(line, "hold %d %zu", &count, &size) == 2) {
            hold_phase(count, size);
        } else if (!strcmp(line, "change")) {
            change_phase();
        } else if (!strcmp(line, "thread")) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, another, NULL) || pthread_join(thread, NULL))
                die("thread");
        } else if (sscanf(line, "churn %d", &count) == 1) {
            churn_phase(count);
        }
        tell();
    }
}
