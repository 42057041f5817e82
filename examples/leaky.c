/*
 * A small service to watch with leaktop: it answers made-up requests at a steady pace.
 *
 *   churn  every request is parsed into buffers that are freed when it is answered;
 *   cache  pages are kept in a cache that drops the one least recently used, so it stops growing;
 *   leak   a session is opened for each request, and a request with a stale token returns early
 *          without closing it: a few blocks a second, for ever.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

enum {
    TICKS_PER_SECOND = 100,
    REQUESTS_PER_TICK = 100,
    PAGES = 5000,          /* pages there are */
    CACHED_PAGES = 1000,   /* pages the cache holds at most */
    BUCKETS = 1024,
    STALE_ONE_IN = 400,    /* so many requests carry a stale token */
};

struct page {
    unsigned number;
    char *body;
    struct page *newer, *older; /* by last use */
    struct page *next;          /* in its bucket */
};

struct request {
    char *path;
    unsigned page;
    unsigned token;
};

struct session {
    unsigned token;
    char state[1000];
};

static struct page *bucket[BUCKETS];
static struct page *newest, *oldest;
static unsigned cached;
static unsigned long answered;
static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static void *checked(void *block)
{
    if (!block) {
        perror("leaky");
        exit(1);
    }
    return block;
}

/* A xorshift generator: the same requests in every run. */
static unsigned next_random(void)
{
    static unsigned state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

static void unlink_use(struct page *page)
{
    *(page->newer ? &page->newer->older : &newest) = page->older;
    *(page->older ? &page->older->newer : &oldest) = page->newer;
}

static void link_newest(struct page *page)
{
    page->newer = NULL;
    page->older = newest;
    *(newest ? &newest->newer : &oldest) = page;
    newest = page;
}

static NOINLINE void cache_evict(void)
{
    struct page *page = oldest;
    struct page **link = &bucket[page->number % BUCKETS];
    while (*link != page)
        link = &(*link)->next;
    *link = page->next;
    unlink_use(page);
    free(page->body);
    free(page);
    cached--;
}

static NOINLINE struct page *cache_load(unsigned number)
{
    size_t size = 1024 + number % 4 * 1024;
    struct page *page = checked(malloc(sizeof *page));
    page->number = number;
    page->body = checked(malloc(size));
    memset(page->body, 'x', size);
    page->next = bucket[number % BUCKETS];
    bucket[number % BUCKETS] = page;
    link_newest(page);
    if (++cached > CACHED_PAGES)
        cache_evict();
    return page;
}

static NOINLINE struct page *cache_get(unsigned number)
{
    for (struct page *page = bucket[number % BUCKETS]; page; page = page->next) {
        if (page->number == number) {
            unlink_use(page);
            link_newest(page);
            return page;
        }
    }
    return cache_load(number);
}

static NOINLINE struct request *parse_request(void)
{
    struct request *request = checked(malloc(sizeof *request));
    request->path = checked(malloc(64));
    /* Some pages are asked for far more often than others. */
    request->page = next_random() % (next_random() % PAGES + 1);
    request->token = next_random();
    snprintf(request->path, 64, "/page/%u", request->page);
    return request;
}

static NOINLINE void free_request(struct request *request)
{
    free(request->path);
    free(request);
}

static NOINLINE struct session *open_session(const struct request *request)
{
    struct session *session = checked(calloc(1, sizeof *session));
    session->token = request->token;
    return session;
}

static NOINLINE int answer(const struct request *request)
{
    struct session *session = open_session(request);
    if (session->token % STALE_ONE_IN == 0)
        return 403; /* the leak: nobody closes the session */
    answered += (unsigned char)cache_get(request->page)->body[0];
    free(session);
    return 200;
}

static NOINLINE void serve_tick(void)
{
    for (int i = 0; i < REQUESTS_PER_TICK; i++) {
        struct request *request = parse_request();
        answer(request);
        free_request(request);
    }
}

int main(void)
{
    const struct timespec tick = {.tv_nsec = 1000000000L / TICKS_PER_SECOND};

    /* End with whoever started it, so that no demo leaves it behind. */
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        return 0;
    signal(SIGTERM, stop);
    /* Started in the background by a script, Ctrl-C is meant for leaktop: leave it ignored. */
    if (signal(SIGINT, stop) == SIG_IGN)
        signal(SIGINT, SIG_IGN);

    printf("leaky: PID %d\n", getpid());
    fflush(stdout);
    while (!stopped) {
        serve_tick();
        nanosleep(&tick, NULL);
    }
    while (oldest)
        cache_evict();
    return 0;
}
