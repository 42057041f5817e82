/* Calls that fail and so change nothing, and the odd forms of realloc. */
#include "target.h"
#include <errno.h>
#include <sys/mman.h>

/* Volatile, so that the compiler neither warns nor decides by itself. */
static volatile size_t huge = PTRDIFF_MAX;
static volatile size_t none = 0;

static void must_fail(void *block)
{
    if (block)
        abort();
}

static NOINLINE void keep_old(void)
{
    void *old = malloc(100); HELD(100);
    must_fail(realloc(old, huge));
    must_fail(reallocarray(old, huge, 16));
    KEEP(old);
}

static NOINLINE void realloc_from_null(void)
{
    void *block = realloc(NULL, 333); HELD(333);
    KEEP(block);
}

static NOINLINE void realloc_to_none(void)
{
    void *block = malloc(200); struct site *site = HELD(200);
    if (realloc(block, none))
        abort();
    freed(site, 200);
}

static NOINLINE void fail_all(void)
{
    void *block = NULL;
    must_fail(malloc(huge));
    must_fail(calloc(huge, 16));
    must_fail(aligned_alloc(64, huge));
    if (posix_memalign(&block, 3, 100) != EINVAL)
        abort();
    if (posix_memalign(&block, 64, huge) != ENOMEM)
        abort();
    if (mmap(NULL, none, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        abort();
    if (mmap(NULL, huge, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        abort();
}

static NOINLINE void failed_mremap_keeps(void)
{
    void *old = mmap(NULL, 3 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); HELD(3 * PAGE);
    if (mremap(old, 3 * PAGE, huge, MREMAP_MAYMOVE) != MAP_FAILED)
        abort();
    KEEP(old);
}

static NOINLINE void work(void)
{
    fail_all();
    keep_old();
    realloc_from_null();
    realloc_to_none();
    failed_mremap_keeps();
}

int main(void) { target_run(work); }
