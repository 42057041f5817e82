/* The library that dlopening.c loads; its caller keeps the books. */
#include <stdlib.h>

enum { LINE = __LINE__ + 5 };

__attribute__((noinline)) void *plugin_allocate(size_t size, int *line)
{
    *line = LINE;
    void *block = malloc(size);
    __asm__ volatile("" : : "r"(block) : "memory");
    return block;
}
