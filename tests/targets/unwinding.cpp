/*
 * A block from under each kind of frame that compilers and libraries make. For each it prints the
 * stack as backtrace(3) saw it from the same function, just after the allocation.
 *
 * Each phase is one round of everything. Blocks are never freed.
 */
#include "target.h"
#include <alloca.h>
#include <execinfo.h>
#include <functional>
#include <new>
#include <setjmp.h>
#include <ucontext.h>

#ifdef ALONE
#include "unwinding_library.c"
#else
extern "C" {
void library_hold(size_t bytes, void (*held)(void *block, size_t bytes));
void library_call(void (*function)(void *), void *argument);
}
#endif

enum { FRAMES_MAX = 256, RECORDS_MAX = 64, STACK_BYTES = 128 * 1024 };

/* One allocation. */
struct record {
    const char *function; /* that called the allocator, or called what did */
    size_t bytes;
    int inner;   /* frames further in than that function */
    int signals; /* signal handlers on the stack */
    int depth;
    void *frames[FRAMES_MAX];
};

static struct record records[RECORDS_MAX];
static int n_records, signals_now;

/* Keeps what comes before from being a tail call. */
#define STAY() __asm__ volatile("" : : : "memory")

extern "C" NOINLINE void note(const char *function, size_t bytes, int inner)
{
    if (n_records == RECORDS_MAX)
        abort();
    struct record *record = &records[n_records++];
    record->function = function;
    record->bytes = bytes;
    record->inner = inner;
    record->signals = signals_now;
    record->depth = backtrace(record->frames, FRAMES_MAX);
    STAY();
}

/* Hold a block and note the stack, in the function where this stands. */
#define HOLD()                                                                                     \
    do {                                                                                           \
        void *block_ = malloc(1000 + __LINE__);                                                    \
        KEEP(block_);                                                                              \
        note(__func__, 1000 + __LINE__, 0);                                                        \
        STAY();                                                                                    \
    } while (0)

/* ---- recursion ---- */

extern "C" NOINLINE int descend(int level, int bottom)
{
    volatile int here = level; /* a frame that is not empty */
    if (level == bottom)
        HOLD();
    else
        descend(level + 1, bottom);
    return here;
}

extern "C" NOINLINE void recursion(void)
{
    descend(0, 0);
    descend(0, 7);
    descend(0, 40);
    descend(0, 150);
    STAY();
}

/* ---- callbacks ---- */

static int compared;

extern "C" NOINLINE int compare(const void *a, const void *b)
{
    if (compared++ == 2)
        HOLD();
    return *(const int *)a - *(const int *)b;
}

extern "C" NOINLINE void sorting(void)
{
    int numbers[] = {5, 3, 9, 1, 7, 2};
    compared = 0;
    qsort(numbers, 6, sizeof *numbers, compare);
    STAY();
}

extern "C" NOINLINE void call_function(const std::function<void(int)> &function)
{
    function(1);
    STAY();
}

extern "C" NOINLINE void in_lambda(void)
{
    HOLD();
}

extern "C" NOINLINE void functional(void)
{
    int here = 0;
    call_function([&](int step) {
        here += step;
        in_lambda();
        STAY();
    });
    KEEP(here);
}

struct base {
    virtual ~base() {}
    virtual void visit() = 0;
};

struct derived : base {
    void visit() override
    {
        in_virtual();
        STAY();
    }
    NOINLINE void in_virtual() { HOLD(); }
};

extern "C" NOINLINE void virtual_call(base *object)
{
    object->visit();
    STAY();
}

/* ---- exceptions ---- */

struct cleaner {
    NOINLINE ~cleaner() { HOLD(); }
};

extern "C" NOINLINE void thrower(int depth)
{
    if (!depth)
        throw 7;
    thrower(depth - 1);
    STAY();
}

extern "C" NOINLINE void between(void)
{
    cleaner guard; /* its destructor runs as the exception passes */
    thrower(3);
    STAY();
}

extern "C" [[noreturn]] NOINLINE void give_up(void)
{
    HOLD();
    throw 8;
}

/* Its last instruction is the call: the return address is the next function's. */
extern "C" NOINLINE void ends_in_a_call(int *now)
{
    *now = 1;
    give_up();
}

extern "C" NOINLINE void too_much(void)
{
    volatile size_t size = (size_t)1 << 60;
    char *block = new char[size];
    KEEP(block);
}

extern "C" NOINLINE void on_no_memory(void)
{
    std::set_new_handler(nullptr);
    HOLD();
}

extern "C" NOINLINE void exceptions(void)
{
    try {
        between();
    } catch (int) {
        HOLD();
    }
    int now = 0;
    try {
        ends_in_a_call(&now);
    } catch (int) {
        HOLD();
    }
    try {
        too_much();
    } catch (const std::bad_alloc &) {
        HOLD();
    }
    std::set_new_handler(on_no_memory);
    try {
        too_much();
    } catch (const std::bad_alloc &) {
        HOLD();
    }
    STAY();
}

/* Throws once before anything is traced: the C++ runtime sets itself up. */
static void exceptions_once(void)
{
    try {
        thrower(1);
    } catch (int) {
    }
}

/* ---- signals ---- */

static char alternative_stack[STACK_BYTES];

extern "C" NOINLINE void on_signal(int, siginfo_t *, void *)
{
    signals_now++;
    HOLD();
    signals_now--;
}

/* For an instruction that faults: goes on after it. */
extern "C" NOINLINE void on_fault(int, siginfo_t *, void *context)
{
    signals_now++;
    HOLD();
    signals_now--;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

extern "C" NOINLINE void on_nesting_signal(int, siginfo_t *, void *)
{
    signals_now++;
    raise(SIGUSR1);
    signals_now--;
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | flags;
    if (sigaction(number, &action, NULL))
        die("sigaction");
}

static void handle_signals(void)
{
    stack_t stack = {};
    stack.ss_sp = alternative_stack;
    stack.ss_size = sizeof alternative_stack;
    if (sigaltstack(&stack, NULL))
        die("sigaltstack");
    handle(SIGUSR1, on_signal, 0);
    handle(SIGUSR2, on_signal, SA_ONSTACK);
    handle(SIGILL, on_fault, 0);
    handle(SIGALRM, on_nesting_signal, 0);
}

/* It calls nothing, and is interrupted where no call is. */
extern "C" NOINLINE int faulting(int value)
{
    __asm__ volatile("ud2" : "+r"(value) : : "memory");
    return value;
}

extern "C" NOINLINE void signals(void)
{
    raise(SIGUSR1);
    raise(SIGUSR2);
    KEEP(faulting(3));
    raise(SIGALRM);
    STAY();
}

/* ---- frames of their own kind ---- */

extern "C" NOINLINE void variable_frame(size_t bytes)
{
    char *room = (char *)alloca(bytes);
    KEEP(room);
    HOLD();
}

extern "C" NOINLINE void aligned_frame(void)
{
    alignas(64) char room[100];
    KEEP(room);
    HOLD();
}

extern "C" NOINLINE void aligned_variable_frame(size_t bytes, int a, int b, int c, int d, int e)
{
    alignas(128) char fixed[100];
    char *room = (char *)alloca(bytes);
    KEEP(fixed);
    KEEP(room);
    HOLD();
    if (a + b + c + d + e)
        aligned_frame();
    STAY();
}

extern "C" NOINLINE void large_frame(int level)
{
    char room[12000];
    KEEP(room);
    if (level)
        large_frame(level - 1);
    else
        HOLD();
    STAY();
}

extern "C" NOINLINE void *tail_allocate(size_t bytes) { return malloc(bytes); }

extern "C" NOINLINE void tail_called(void) { HOLD(); }

extern "C" NOINLINE void tail_calling(int *now)
{
    *now = 2;
    tail_called();
}

extern "C" NOINLINE void tail_calls(void)
{
    int now = 0;
    tail_calling(&now);
    KEEP(now);
    void *block = tail_allocate(1500);
    KEEP(block);
    note(__func__, 1500, 0);
    STAY();
}

/* ---- other libraries ---- */

extern "C" NOINLINE void held_by_library(void *block, size_t bytes)
{
    KEEP(block);
    note("library_hold", bytes, -1);
    STAY();
}

extern "C" NOINLINE void called_back(void *argument)
{
    KEEP(argument);
    HOLD();
}

extern "C" NOINLINE void libraries(void)
{
    library_hold(1600, held_by_library);
    library_call(called_back, NULL);
    char *copy = strdup("six chars and more");
    KEEP(copy);
    note(__func__, 19, 1);
    STAY();
}

/* ---- coroutines ---- */

static char coroutine_stacks[2][STACK_BYTES];
static ucontext_t main_context, coroutines[2];

extern "C" NOINLINE void in_coroutine(int level)
{
    if (level)
        in_coroutine(level - 1);
    else
        HOLD();
    STAY();
}

static void run_coroutine(int which)
{
    for (;;) {
        in_coroutine(which + 2);
        swapcontext(&coroutines[which], &main_context);
    }
}

static void make_coroutines(void)
{
    for (int i = 0; i < 2; i++) {
        getcontext(&coroutines[i]);
        coroutines[i].uc_stack.ss_sp = coroutine_stacks[i];
        coroutines[i].uc_stack.ss_size = STACK_BYTES;
        coroutines[i].uc_link = &main_context;
        makecontext(&coroutines[i], (void (*)(void))run_coroutine, 1, i);
    }
}

extern "C" NOINLINE void switching(void)
{
    swapcontext(&main_context, &coroutines[0]);
    swapcontext(&main_context, &coroutines[1]);
    STAY();
}

/* ---- a thread, which waits for its turns ---- */

static pthread_barrier_t turn;

extern "C" NOINLINE void in_thread(void) { HOLD(); }

static void *run_thread(void *)
{
    for (;;) {
        pthread_barrier_wait(&turn);
        in_thread();
        pthread_barrier_wait(&turn);
    }
}

extern "C" NOINLINE void threads(void)
{
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
}

static void print_records(void)
{
    target_print("[");
    for (int i = 0; i < n_records; i++) {
        const struct record *record = &records[i];
        target_print("%s{\"function\":\"%s\",\"bytes\":%zu,\"inner\":%d,\"signals\":%d,\"frames\":[",
                     i ? "," : "", record->function, record->bytes, record->inner,
                     record->signals);
        for (int f = 0; f < record->depth; f++)
            target_print("%s%lu", f ? "," : "", (unsigned long)record->frames[f]);
        target_print("]}");
    }
    target_print("]\n");
}

int main(void)
{
    derived object;
    pthread_t thread;
    void *frame;

    backtrace(&frame, 1); /* it loads a library */
    exceptions_once();
    handle_signals();
    make_coroutines();
    pthread_barrier_init(&turn, NULL, 2);
    if (pthread_create(&thread, NULL, run_thread, NULL))
        die("pthread_create");
    target_ready();
    for (;;) {
        target_wait();
        n_records = 0;
        recursion();
        sorting();
        functional();
        virtual_call(&object);
        exceptions();
        signals();
        variable_frame(300);
        aligned_frame();
        aligned_variable_frame(200, 1, 2, 3, 4, 5);
        large_frame(4);
        tail_calls();
        libraries();
        switching();
        threads();
        print_records();
    }
}
