/* Mappings given back in part; the argument says how. */
#include "target.h"
#include <sys/mman.h>
#include <sys/syscall.h>


/* An address with room for so many pages; asked of the kernel directly, so that nobody counts it. */
static char *room(size_t pages)
{
    long address = syscall(SYS_mmap, NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    syscall(SYS_munmap, address, pages * PAGE);
    return (char *)address;
}

static void unmap(char *address, size_t pages)
{
    if (munmap(address, pages * PAGE))
        die("munmap");
}

#define MAP(pages)                                                                                 \
    mmap(NULL, (pages) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)

static NOINLINE void unmap_exact(void)
{
    char *address = MAP(8); struct site *site = HELD(8 * PAGE);
    unmap(address, 8);
    freed(site, 8 * PAGE);
}

static NOINLINE void unmap_head(void)
{
    char *address = MAP(8); struct site *site = HELD(8 * PAGE);
    unmap(address, 3);
    site->bytes -= 3 * PAGE;
}

static NOINLINE void unmap_tail(void)
{
    char *address = MAP(8); struct site *site = HELD(8 * PAGE);
    unmap(address + 6 * PAGE, 2);
    site->bytes -= 2 * PAGE;
}

static NOINLINE void unmap_head_then_tail_then_rest(void)
{
    char *address = MAP(8); struct site *site = HELD(8 * PAGE);
    unmap(address, 1);
    unmap(address + 7 * PAGE, 1);
    unmap(address + PAGE, 6);
    freed(site, 8 * PAGE);
}

/* What is left of a hole in the middle is not counted apart: the mapping stays whole. */
static NOINLINE void unmap_middle(void)
{
    char *address = MAP(8); HELD(8 * PAGE);
    unmap(address + 3 * PAGE, 2);
}

static NOINLINE void unmap_spanning(void)
{
    char *address = room(9);
    char *first = mmap(address, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0); struct site *a = HELD(4 * PAGE);
    char *second = mmap(address + 4 * PAGE, 5 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0); struct site *b = HELD(5 * PAGE);
    if (first != address || second != address + 4 * PAGE)
        die("mmap");
    unmap(address, 9);
    freed(a, 4 * PAGE);
    freed(b, 5 * PAGE);
}

/* As many neighbours, of a page each. */
static NOINLINE struct site *neighbours(char *address, size_t count)
{
    struct site *site = NULL;
    for (size_t i = 0; i < count; i++) {
        char *at = mmap(address + i * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0); site = HELD(PAGE);
        if (at != address + i * PAGE)
            die("mmap");
    }
    return site;
}

static NOINLINE void unmap_many(void)
{
    char *address = room(30);
    struct site *site = neighbours(address, 30);
    unmap(address, 30);
    for (int i = 0; i < 30; i++)
        freed(site, PAGE);
}

static NOINLINE void replace_many(void)
{
    char *address = room(30);
    struct site *site = neighbours(address, 30);
    mmap(address, 30 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); HELD(30 * PAGE);
    for (int i = 0; i < 30; i++)
        freed(site, PAGE);
}

/* A failing munmap changes nothing. */
static NOINLINE void unmap_failing(void)
{
    char *address = MAP(2); HELD(2 * PAGE);
    if (!munmap(address + 1, PAGE))
        abort();
}

static const struct {
    const char *name;
    void (*run)(void);
} ways[] = {
    {"exact", unmap_exact},
    {"head", unmap_head},
    {"tail", unmap_tail},
    {"pieces", unmap_head_then_tail_then_rest},
    {"middle", unmap_middle},
    {"spanning", unmap_spanning},
    {"many", unmap_many},
    {"replaced", replace_many},
    {"failing", unmap_failing},
};

static const char *way;

static NOINLINE void work(void)
{
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (!strcmp(way, ways[i].name))
            ways[i].run();
}

int main(int argc, char **argv)
{
    way = argc > 1 ? argv[1] : "exact";
    target_run(work);
}
