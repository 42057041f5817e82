/* Each allocator function by itself: functions NAME leaks some blocks through it and frees others. */
#include "target.h"
#include <malloc.h>
#include <sys/mman.h>

enum { LEAKED = 10, FREED = 7 };

static size_t odd_size(int i) { return 24 + (size_t)i * 17; }

#define LEAK_AND_FREE(allocate, size)                                                              \
    for (int i = 0; i < LEAKED + FREED; i++) {                                                     \
        void *block = allocate; struct site *site = HELD(size);                                    \
        if (!block) die("allocate");                                                               \
        KEEP(block);                                                                               \
        if (i % 2 && i / 2 < FREED) { free(block); freed(site, size); }                            \
    }

static NOINLINE void leak_malloc(void)
{
    LEAK_AND_FREE(malloc(odd_size(i)), odd_size(i))
    /* A block of no bytes is a block all the same. */
    void *empty = malloc(0); HELD(0);
    KEEP(empty);
}

static NOINLINE void leak_calloc(void) { LEAK_AND_FREE(calloc(3, odd_size(i)), 3 * odd_size(i)) }

static NOINLINE void leak_memalign(void) { LEAK_AND_FREE(memalign(256, odd_size(i)), odd_size(i)) }

static NOINLINE void leak_aligned_alloc(void)
{
    LEAK_AND_FREE(aligned_alloc(64, 64 * (size_t)(i + 1)), 64 * (size_t)(i + 1))
}

static NOINLINE void leak_valloc(void) { LEAK_AND_FREE(valloc(odd_size(i)), odd_size(i)) }

static NOINLINE void leak_pvalloc(void) { LEAK_AND_FREE(pvalloc(odd_size(i)), odd_size(i)) }

static NOINLINE void leak_posix_memalign(void)
{
    for (int i = 0; i < LEAKED + FREED; i++) {
        void *block = NULL;
        int failed = posix_memalign(&block, 128, odd_size(i)); struct site *site = HELD(odd_size(i));
        if (failed)
            die("posix_memalign");
        if (i % 2 && i / 2 < FREED) {
            free(block);
            freed(site, odd_size(i));
        }
    }
}

/* The block to grow comes from elsewhere, so that the old and the new one tell apart. */
static NOINLINE void *block_to_grow(size_t size, struct site **site)
{
    void *block = malloc(size); *site = HELD(size);
    return block;
}

static NOINLINE void leak_realloc(void)
{
    for (int i = 0; i < LEAKED + FREED; i++) {
        struct site *old;
        void *block = block_to_grow(odd_size(i), &old);
        /* Some move, some grow or shrink in place. */
        size_t size = i % 3 ? odd_size(i) * 40 : 16;
        block = realloc(block, size); struct site *site = HELD(size);
        if (!block)
            die("realloc");
        freed(old, odd_size(i));
        KEEP(block);
        if (i % 2 && i / 2 < FREED) {
            free(block);
            freed(site, size);
        }
    }
}

static NOINLINE void leak_reallocarray(void)
{
    for (int i = 0; i < LEAKED + FREED; i++) {
        struct site *old;
        void *block = block_to_grow(odd_size(i), &old);
        size_t size = 5 * odd_size(i);
        block = reallocarray(block, 5, odd_size(i)); struct site *site = HELD(size);
        if (!block)
            die("reallocarray");
        freed(old, odd_size(i));
        KEEP(block);
        if (i % 2 && i / 2 < FREED) {
            free(block);
            freed(site, size);
        }
    }
}

/* What one function takes, another gives back: all but three blocks. */
static NOINLINE void give_back(void **blocks, int n, struct site *site)
{
    for (int i = 3; i < n; i++) {
        free(blocks[i]);
        freed(site, odd_size(i));
    }
    free(NULL);
}

static NOINLINE void leak_free(void)
{
    void *blocks[100];
    struct site *site = NULL;
    for (int i = 0; i < 100; i++) {
        blocks[i] = malloc(odd_size(i)); site = HELD(odd_size(i));
    }
    give_back(blocks, 100, site);
}

static void *mapped(void *address)
{
    if (address == MAP_FAILED)
        die("mmap");
    return address;
}

#define MMAP(length) mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)

static NOINLINE void leak_mmap(void)
{
    for (int i = 1; i <= LEAKED; i++) {
        mapped(MMAP((size_t)i * PAGE)); HELD((size_t)i * PAGE);
    }
    /* The kernel maps whole pages. */
    mapped(MMAP(5000)); HELD(2 * PAGE);
}

static NOINLINE void leak_munmap(void)
{
    for (int i = 1; i <= LEAKED; i++) {
        size_t length = (size_t)i * PAGE;
        void *address = mapped(MMAP(length)); struct site *site = HELD(length);
        if (i > 3) {
            /* A length within the last page unmaps all of it. */
            if (munmap(address, length - 100))
                die("munmap");
            freed(site, length);
        }
    }
}

static NOINLINE void *mapping_to_grow(size_t length, struct site **site)
{
    void *address = mapped(MMAP(length)); *site = HELD(length);
    return address;
}

static NOINLINE void leak_mremap(void)
{
    for (int i = 1; i <= LEAKED; i++) {
        struct site *old;
        size_t length = (size_t)i * PAGE;
        void *address = mapping_to_grow(4 * PAGE, &old);
        address = mapped(mremap(address, 4 * PAGE, length, MREMAP_MAYMOVE)); struct site *site = HELD(length);
        freed(old, 4 * PAGE);
        if (i % 2) {
            munmap(address, length);
            freed(site, length);
        }
    }
}

static const struct {
    const char *name;
    void (*leak)(void);
} functions[] = {
    {"malloc", leak_malloc},
    {"calloc", leak_calloc},
    {"realloc", leak_realloc},
    {"free", leak_free},
    {"mmap", leak_mmap},
    {"munmap", leak_munmap},
    {"mremap", leak_mremap},
    {"posix_memalign", leak_posix_memalign},
    {"memalign", leak_memalign},
    {"aligned_alloc", leak_aligned_alloc},
    {"valloc", leak_valloc},
    {"pvalloc", leak_pvalloc},
    {"reallocarray", leak_reallocarray},
};

static char **wanted;

static int is_wanted(const char *name)
{
    for (char **each = wanted; *each; each++)
        if (!strcmp(*each, name) || !strcmp(*each, "all"))
            return 1;
    return 0;
}

static NOINLINE void work(void)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (is_wanted(functions[i].name))
            functions[i].leak();
}

int main(int argc, char **argv)
{
    static char *all[] = {"all", NULL};
    wanted = argc > 1 ? argv + 1 : all;
    target_run(work);
}
