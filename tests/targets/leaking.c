/*
 * Several stacks at once, each with the habits of one kind of code, and which of them leak:
 *   leaking SEED KIND[=SCALE]...
 * SCALE, a number, makes what the kind does larger, longer or rarer, in the way that is its own; SEED
 * chooses the rest. After "go" they all begin; the answer to it is the truth, in JSON, a line:
 *   {"sites":[{"function":"slow_leak","leaks":true},...]}
 * Each kind allocates in a function of its name. The program works until told to quit.
 */
#include "target.h"
#include <math.h>
#include <poll.h>
#include <time.h>

enum { HELD_MAX = 1 << 17, KINDS_MAX = 24 };

typedef struct work work;

struct kind {
    const char *name;
    int leaks;
    void (*begin)(work *);
    double (*step)(work *); /* does a little; returns seconds until the next */
};

/* One kind at work. */
struct work {
    const struct kind *kind;
    double scale, due, start;
    unsigned long long random;
    void **held; /* a ring of what it holds */
    size_t *sizes;
    unsigned first, count;
    double bytes; /* of what it holds */
    double limit, period, a, b; /* its own */
    int phase;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double chance(work *w) /* from 0 to 1 */
{
    w->random = w->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (double)(w->random >> 11) / 9007199254740992.0;
}

static double between(work *w, double low, double high)
{
    return low + (high - low) * chance(w);
}

static double waiting(work *w, double rate) /* of a Poisson process */
{
    return -log(1 - chance(w)) / rate;
}

static void hold(work *w, void *block, size_t size)
{
    unsigned at = (w->first + w->count) % HELD_MAX;
    if (!block || w->count == HELD_MAX)
        die("hold");
    w->held[at] = block;
    w->sizes[at] = size;
    w->count++;
    w->bytes += (double)size;
}

static void drop_oldest(work *w)
{
    free(w->held[w->first]);
    w->bytes -= (double)w->sizes[w->first];
    w->first = (w->first + 1) % HELD_MAX;
    w->count--;
}

static void drop_all(work *w)
{
    while (w->count)
        drop_oldest(w);
}

static void no_beginning(work *w)
{
    (void)w;
}

/* One small block a second, never freed. */
static NOINLINE double slow_leak(work *w)
{
    void *block = malloc(48);
    KEEP(block);
    return w->scale;
}

/* The common path frees; one call in a thousand forgets to. */
static NOINLINE double leak_on_rare_path(work *w)
{
    for (int i = 0; i < 20; i++) {
        void *block = malloc(96);
        KEEP(block);
        if (chance(w) >= 0.001 / w->scale)
            free(block);
    }
    return 0.01;
}

/* A request's buffer lives a while; now and then one is forgotten. */
static NOINLINE double leak_under_load(work *w)
{
    size_t size = (size_t)between(w, 64, 1024);
    void *block = malloc(size);
    if (chance(w) < 0.02) {
        KEEP(block);
        return waiting(w, 50 / w->scale);
    }
    hold(w, block, size);
    if (w->count > 20 * w->scale)
        drop_oldest(w);
    return waiting(w, 50 / w->scale);
}

static NOINLINE double leak_in_bursts(work *w)
{
    int count = (int)between(w, 5, 40);
    for (int i = 0; i < count; i++) {
        void *block = malloc(200);
        KEEP(block);
    }
    return between(w, 2, 4) * w->scale;
}

/* A cache by name: every key is new, and none is ever thrown out. */
static NOINLINE double cache_without_limit(work *w)
{
    void *block = malloc((size_t)between(w, 40, 800));
    KEEP(block);
    return waiting(w, 20 / w->scale);
}

/* A buffer for each of a few things, which only ever grows. */
static NOINLINE double buffers_that_grow(work *w)
{
    unsigned i = (unsigned)(chance(w) * 8);
    w->sizes[i] += (size_t)between(w, 100, 2000);
    w->held[i] = realloc(w->held[i], w->sizes[i]);
    KEEP(w->held[i]);
    return waiting(w, 8 / w->scale);
}

/* Many at once, freed at once. */
static NOINLINE double churn(work *w)
{
    for (int i = 0; i < 1000; i++) {
        void *block = malloc(32 + (size_t)(i & 255));
        KEEP(block);
        free(block);
    }
    return 0.01 * w->scale;
}

static void begin_data(work *w)
{
    w->limit = between(w, 500, 3000) * w->scale;
}

static NOINLINE double startup_data(work *w)
{
    for (int i = 0; i < 100 && w->count < w->limit; i++)
        hold(w, malloc(256), 256);
    return w->count < w->limit ? 0.05 : 3600;
}

static void begin_cache(work *w)
{
    w->limit = between(w, 300, 2000) * w->scale;
    w->a = between(w, 60, 250); /* misses a second */
}

/* Bounded by the number of its entries. */
static NOINLINE double lru_cache(work *w)
{
    size_t size = (size_t)between(w, 50, 2000);
    hold(w, malloc(size), size);
    if (w->count > w->limit)
        drop_oldest(w);
    return waiting(w, w->a);
}

/* Bounded by the bytes in it. */
static NOINLINE double cache_of_bytes(work *w)
{
    size_t size = (size_t)between(w, 50, 4000);
    hold(w, malloc(size), size);
    while (w->bytes > w->limit * 1000)
        drop_oldest(w);
    return waiting(w, w->a);
}

/* 200 MB in large entries, some of which are replaced all the time. */
static NOINLINE double large_cache(work *w)
{
    do
        hold(w, malloc(65536), 65536);
    while (w->count % 64 && w->count < 3200);
    if (w->count > 3200)
        drop_oldest(w);
    return w->count < 3200 ? 0.02 : 0.05 * w->scale;
}

static void begin_pool(work *w)
{
    w->a = between(w, 1.5, 4) * w->scale;
    w->limit = 32;
}

/* Twice as much each time that it is not enough; what it has is used again. */
static NOINLINE double pool_in_steps(work *w)
{
    if (w->phase++ == 6)
        return 3600;
    while (w->count < w->limit)
        hold(w, malloc(512), 512);
    w->limit *= 2;
    return w->a *= 1.6;
}

static void begin_queue(work *w)
{
    w->a = between(w, 3, 9) * w->scale; /* from burst to burst */
    w->period = now() + between(w, 0, w->a);
}

/* Fills within a second, and is drained in several. */
static NOINLINE double queue_with_bursts(work *w)
{
    double passed = now() - w->period;
    if (passed > 0) {
        size_t size = (size_t)between(w, 40, 400);
        hold(w, malloc(size), size);
        if (passed > between(w, 0.5, 1))
            w->period = now() + waiting(w, 1 / w->a);
        return 0.002;
    }
    if (w->count)
        drop_oldest(w);
    return w->count ? 0.005 : 0.02;
}

static void begin_batch(work *w)
{
    w->period = between(w, 4, 9) * w->scale;
    w->limit = between(w, 200, 900);
}

/* Reads in for most of a period, works, and gives all back. */
static NOINLINE double periodic_batch(work *w)
{
    double part = fmod(now() - w->start, w->period) / w->period;
    if (part < 0.6)
        hold(w, malloc(300), 300);
    else if (part > 0.75)
        drop_all(w);
    return 0.6 * w->period / w->limit;
}

static void begin_sessions(work *w)
{
    w->a = between(w, 20, 90);
    w->limit = between(w, 2, 6) * w->scale; /* seconds that one lasts */
}

/* Each lives for some seconds. */
static NOINLINE double sessions(work *w)
{
    size_t size = (size_t)between(w, 100, 700);
    hold(w, malloc(size), size);
    if (w->count > w->a * w->limit * between(w, 0.9, 1.1))
        drop_oldest(w);
    if (w->count > w->a * w->limit)
        drop_oldest(w);
    return waiting(w, w->a);
}

static const struct kind kinds[] = {
    {"slow_leak", 1, no_beginning, slow_leak},
    {"leak_on_rare_path", 1, no_beginning, leak_on_rare_path},
    {"leak_under_load", 1, no_beginning, leak_under_load},
    {"leak_in_bursts", 1, no_beginning, leak_in_bursts},
    {"cache_without_limit", 1, no_beginning, cache_without_limit},
    {"buffers_that_grow", 1, no_beginning, buffers_that_grow},
    {"churn", 0, no_beginning, churn},
    {"startup_data", 0, begin_data, startup_data},
    {"lru_cache", 0, begin_cache, lru_cache},
    {"cache_of_bytes", 0, begin_cache, cache_of_bytes},
    {"large_cache", 0, no_beginning, large_cache},
    {"pool_in_steps", 0, begin_pool, pool_in_steps},
    {"queue_with_bursts", 0, begin_queue, queue_with_bursts},
    {"periodic_batch", 0, begin_batch, periodic_batch},
    {"sessions", 0, begin_sessions, sessions},
};

static work works[KINDS_MAX];
static int n_works;

static void add(const char *text, unsigned long long seed)
{
    size_t length = strcspn(text, "=");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].name) != length || strncmp(kinds[i].name, text, length))
            continue;
        if (n_works == KINDS_MAX)
            break;
        work *w = &works[n_works++];
        w->kind = &kinds[i];
        w->scale = text[length] ? atof(text + length + 1) : 1.0;
        w->random = seed * 1000003 + i * 7919 + 12345;
        for (int j = 0; j < 8; j++)
            chance(w);
        w->held = calloc(HELD_MAX, sizeof *w->held);
        w->sizes = calloc(HELD_MAX, sizeof *w->sizes);
        return;
    }
    fprintf(stderr, "no kind, or one too many: %s\n", text);
    exit(2);
}

static void begin_all(void)
{
    target_print("{\"sites\":[");
    for (int i = 0; i < n_works; i++) {
        work *w = &works[i];
        w->start = now();
        w->kind->begin(w);
        w->due = now() + between(w, 0, 0.5);
        target_print("%s{\"function\":\"%s\",\"leaks\":%s}", i ? "," : "", w->kind->name,
                     w->kind->leaks ? "true" : "false");
    }
    target_print("]}\n");
}

int main(int argc, char **argv)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    for (int i = 2; i < argc; i++)
        add(argv[i], strtoull(argv[1], NULL, 10));
    target_ready();
    target_wait();
    begin_all();
    for (;;) {
        work *next = &works[0];
        for (int i = 1; i < n_works; i++)
            if (works[i].due < next->due)
                next = &works[i];
        double left = next->due - now();
        if (poll(&input, 1, left > 0.001 ? (int)(left * 1000) : 0) > 0)
            target_wait();
        if (next->due <= now())
            next->due = now() + next->kind->step(next);
    }
}
