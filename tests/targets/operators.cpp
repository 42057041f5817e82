/* Each form of operator new, some of it freed by the operator delete that belongs to it; and an
 * allocation that throws, now and then. Each phase does the same again. */
#include "target.h"
#include <new>

enum { BYTES = 48, ALIGNMENT = 128 };
static volatile int rounds = 2; /* a loop that is not unrolled: one call, one stack */

typedef std::align_val_t Align;

/* Hold one block and let go of another. */
#define FORM(name, allocate, release)                                                              \
    extern "C" NOINLINE void name(void)                                                            \
    {                                                                                              \
        for (int i = 0; i < rounds; i++) {                                                         \
            void *block = allocate; struct site *site = HELD(BYTES);                               \
            KEEP(block);                                                                           \
            if (!i) {                                                                              \
                release;                                                                           \
                freed(site, BYTES);                                                                \
            }                                                                                      \
        }                                                                                          \
    }

FORM(plain, ::operator new(BYTES), ::operator delete(block))
FORM(sized, ::operator new(BYTES), ::operator delete(block, (size_t)BYTES))
FORM(array, ::operator new[](BYTES), ::operator delete[](block))
FORM(sized_array, ::operator new[](BYTES), ::operator delete[](block, (size_t)BYTES))
FORM(nothrow, ::operator new(BYTES, std::nothrow), ::operator delete(block, std::nothrow))
FORM(nothrow_array, ::operator new[](BYTES, std::nothrow), ::operator delete[](block, std::nothrow))
FORM(aligned, ::operator new(BYTES, Align(ALIGNMENT)), ::operator delete(block, Align(ALIGNMENT)))
FORM(aligned_array, ::operator new[](BYTES, Align(ALIGNMENT)),
     ::operator delete[](block, Align(ALIGNMENT)))
FORM(aligned_sized, ::operator new(BYTES, Align(ALIGNMENT)),
     ::operator delete(block, (size_t)BYTES, Align(ALIGNMENT)))

/* The same call, first in vain. */
extern "C" NOINLINE void throwing(void)
{
    volatile size_t sizes[] = {(size_t)1 << 60, BYTES, (size_t)1 << 60, BYTES};
    for (int i = 0; i < 2 * rounds; i++) {
        try {
            void *block = ::operator new(sizes[i]); HELD(BYTES);
            KEEP(block);
        } catch (const std::bad_alloc &) {
        }
    }
}

/* "calm": nothing throws, for allocators that are written in C and abort. */
int main(int argc, char **argv)
{
    int calm = argc > 1 && !strcmp(argv[1], "calm");
    try {
        throw 1; /* the C++ runtime sets itself up */
    } catch (int) {
    }
    target_ready();
    for (;;) {
        target_wait();
        plain();
        sized();
        array();
        sized_array();
        nothrow();
        nothrow_array();
        aligned();
        aligned_array();
        aligned_sized();
        if (!calm)
            throwing();
        target_truth();
    }
}
