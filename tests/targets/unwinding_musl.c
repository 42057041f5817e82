/* Frames above a C library that has no call frame information, and no backtrace(3): the calls on
 * each stack are known here by name, innermost first. A block of its own size for each. */
#include "target.h"
#include <alloca.h>
#include <ucontext.h>

#define STAY() __asm__ volatile("" : : : "memory")
#define HOLD(bytes)                                                                                \
    do {                                                                                           \
        void *block_ = malloc(bytes);                                                              \
        KEEP(block_);                                                                              \
        STAY();                                                                                    \
    } while (0)

NOINLINE int descend(int level)
{
    volatile int here = level;
    if (level)
        descend(level - 1);
    else
        HOLD(1001);
    return here;
}

NOINLINE void variable_frame(size_t bytes)
{
    char *room = alloca(bytes);
    KEEP(room);
    HOLD(1002);
}

NOINLINE void aligned_frame(void)
{
    __attribute__((aligned(64))) char room[100];
    KEEP(room);
    HOLD(1003);
}

NOINLINE void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    HOLD(1004);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

NOINLINE void faulting(void)
{
    __asm__ volatile("ud2");
    STAY();
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGILL, &action, NULL))
        die("sigaction");
    target_ready();
    for (;;) {
        target_wait();
        void *block = malloc(1);
        KEEP(block);
        free(block); /* a static program has no free where it calls none */
        descend(3);
        variable_frame(300);
        aligned_frame();
        faulting();
        target_print("{\"1001\":[\"descend\",\"descend\",\"descend\",\"descend\",\"main\"],"
                     "\"1002\":[\"variable_frame\",\"main\"],\"1003\":[\"aligned_frame\",\"main\"],"
                     "\"1004\":[\"on_fault\",null,\"faulting\",\"main\"]}\n");
    }
}
