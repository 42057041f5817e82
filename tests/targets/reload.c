/* Libraries of one layout whose code differs in the size of a frame only: -DROOM=BYTES. */
#include <stdlib.h>

void reload_hold(void (*held)(void))
{
    char room[ROOM];
    __asm__ volatile("" : : "r"(room) : "memory");
    void *block = malloc(1700);
    __asm__ volatile("" : : "r"(block) : "memory");
    held();
    __asm__ volatile("" : : : "memory");
}
