/* A library function that allocates: it calls malloc through its own PLT. */
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

__attribute__((noinline)) void library_hold(size_t bytes, void (*held)(void *block, size_t bytes))
{
    void *block = malloc(bytes);
    held(block, bytes);
    /* Not a tail call: the frame stays. */
    __asm__ volatile("" : : : "memory");
}

__attribute__((noinline)) void library_call(void (*function)(void *), void *argument)
{
    function(argument);
    __asm__ volatile("" : : : "memory");
}

#ifdef __cplusplus
}
#endif
