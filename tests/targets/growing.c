/*
 * Takes pages as it is told, one way a line, and prints the truth in pages after each:
 *   touch N      write to N new pages of a private mapping
 *   read N       read N new pages first (the zero page), then write to them
 *   huge N       write to N new huge pages, where the kernel gives any
 *   shared N     write to N new pages of shared anonymous memory
 *   file N       read N pages of a file that the page cache has not got, and write to none
 *   private N    write to N pages of a private mapping of a file
 *   copy N       have the kernel write to N new pages: read(2)
 *   populate N   mmap with MAP_POPULATE
 *   stack N      go N pages down a thread's stack, for the first time
 *   fork N       touch N pages, fork, and write to them again while the child has them
 *   back N       touch N pages and give them back: munmap
 *   old N        touch N pages twice
 *   threads N    touch N pages in each of four threads at once
 *   heap N       N calls of sbrk, a page each, touched
 * Of a site, bytes are those of new pages, count is their number, allocs the faults that brought
 * them, frees the calls of brk and mmap.
 */
#include "target.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { HUGE = 512 * PAGE, THREADS = 4 };

static struct site *took(struct site *site, unsigned long long pages, unsigned long long faults)
{
    site->bytes += pages * PAGE;
    site->count += pages;
    site->allocs += faults;
    return site;
}

#define HERE site_of(__func__, __LINE__)

static char *reserve(size_t bytes, int flags, int fd)
{
    char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (pages == MAP_FAILED)
        die("mmap");
    return pages;
}

static char *plain(int n)
{
    char *pages = reserve((size_t)n * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    madvise(pages, (size_t)n * PAGE, MADV_NOHUGEPAGE);
    return pages;
}

static NOINLINE void write_pages(char *pages, int n)
{
    for (int i = 0; i < n; i++) {
        *(volatile char *)(pages + (size_t)i * PAGE) = 1; took(HERE, 1, 1);
    }
}

/* Writes that bring no page, so that they do not count as write_pages. */
static NOINLINE void write_old(char *pages, int n)
{
    for (int i = 0; i < n; i++)
        *(volatile char *)(pages + (size_t)i * PAGE) = 2;
}

static NOINLINE void read_pages(const char *pages, int n)
{
    for (int i = 0; i < n; i++)
        target_checksum += *(const volatile char *)(pages + (size_t)i * PAGE);
}

static NOINLINE void write_huge(int n)
{
    char *room = reserve((size_t)(n + 1) * HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    char *pages = (char *)(((uintptr_t)room + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
    madvise(pages, (size_t)n * HUGE, MADV_HUGEPAGE);
    for (int i = 0; i < n; i++) {
        *(volatile char *)(pages + (size_t)i * HUGE) = 1; took(HERE, HUGE / PAGE, 1);
    }
}

static NOINLINE int fresh_file(int n)
{
    char path[] = "/var/tmp/growing-XXXXXX";
    int fd = mkstemp(path);
    static char page[PAGE];
    if (fd < 0)
        die("mkstemp");
    unlink(path);
    for (int i = 0; i < n; i++)
        if (write(fd, page, PAGE) != PAGE)
            die("write");
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return fd;
}

static NOINLINE void copy_pages(int n)
{
    char *pages = plain(n);
    int fd = open("/dev/zero", O_RDONLY);
    ssize_t done = read(fd, pages, (size_t)n * PAGE); took(HERE, n, n);
    if (done != (ssize_t)n * PAGE)
        die("read");
    close(fd);
}

static NOINLINE void populate_pages(int n)
{
    char *pages = mmap(NULL, (size_t)n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0); took(HERE, n, n)->frees++;
    KEEP(pages);
}

enum { STACK_PAGES = 512 };
static char *stack;

static NOINLINE int resident_pages(void)
{
    static unsigned char there[STACK_PAGES];
    int sum = 0;
    if (mincore(stack, (size_t)STACK_PAGES * PAGE, there))
        die("mincore");
    for (int i = 0; i < STACK_PAGES; i++)
        sum += there[i] & 1;
    return sum;
}

static NOINLINE void go_down(int n)
{
    char page[PAGE];
    *(volatile char *)page = 1;
    if (n > 1)
        go_down(n - 1);
    KEEP(page);
}

/* Which instruction of it comes first to a page is the compiler's affair: line 0. */
static void *stack_main(void *n)
{
    int before = resident_pages();
    go_down(*(int *)n);
    int new = resident_pages() - before;
    took(site_of("go_down", 0), new, new);
    return NULL;
}

static NOINLINE void stack_pages(int n)
{
    pthread_attr_t attributes;
    pthread_t thread;
    stack = plain(STACK_PAGES);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, (size_t)STACK_PAGES * PAGE);
    pthread_create(&thread, &attributes, stack_main, &n);
    pthread_join(thread, NULL);
}

static NOINLINE void fork_pages(int n)
{
    char *pages = plain(n);
    int hold[2];
    char c;
    write_pages(pages, n);
    if (pipe(hold))
        die("pipe");
    pid_t child = fork();
    if (!child) {
        close(hold[1]);
        _exit(read(hold[0], &c, 1) != 0);
    }
    for (int i = 0; i < n; i++) {
        *(volatile char *)(pages + (size_t)i * PAGE) = 3; took(HERE, 1, 1);
    }
    close(hold[0]);
    close(hold[1]);
    waitpid(child, NULL, 0);
}

static int each;
static pthread_barrier_t together;
static _Atomic int threads_line;

static NOINLINE void thread_pages(char *pages, int n)
{
    for (int i = 0; i < n; i++) {
        *(volatile char *)(pages + (size_t)i * PAGE) = 1; threads_line = __LINE__;
    }
}

static void *thread_main(void *pages)
{
    pthread_barrier_wait(&together);
    thread_pages(pages, each);
    return NULL;
}

static NOINLINE void four_threads(int n)
{
    pthread_t threads[THREADS];
    each = n;
    pthread_barrier_init(&together, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, thread_main, plain(n));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    took(site_of("thread_pages", threads_line), THREADS * n, THREADS * n);
}

static NOINLINE void heap_pages(int n)
{
    for (int i = 0; i < n; i++) {
        char *page = sbrk(PAGE); HERE->frees++;
        *(volatile char *)(((uintptr_t)page + PAGE - 1) & ~(uintptr_t)(PAGE - 1)) = 1; took(HERE, 1, 1);
    }
}

int main(void)
{
    sbrk(0); /* the first one calls brk twice */
    target_ready();
    for (;;) {
        char way[16];
        int n = 0;
        sscanf(target_wait(), "%15s %d", way, &n);
        size_t bytes = (size_t)n * PAGE;
        if (!strcmp(way, "touch")) {
            write_pages(plain(n), n);
        } else if (!strcmp(way, "read")) {
            char *pages = plain(n);
            read_pages(pages, n);
            write_pages(pages, n);
        } else if (!strcmp(way, "huge")) {
            write_huge(n);
        } else if (!strcmp(way, "shared")) {
            write_pages(reserve(bytes, MAP_SHARED | MAP_ANONYMOUS, -1), n);
        } else if (!strcmp(way, "file")) {
            read_pages(reserve(bytes, MAP_SHARED, fresh_file(n)), n);
        } else if (!strcmp(way, "private")) {
            write_pages(reserve(bytes, MAP_PRIVATE, fresh_file(n)), n);
        } else if (!strcmp(way, "copy")) {
            copy_pages(n);
        } else if (!strcmp(way, "populate")) {
            populate_pages(n);
        } else if (!strcmp(way, "stack")) {
            stack_pages(n);
        } else if (!strcmp(way, "fork")) {
            fork_pages(n);
        } else if (!strcmp(way, "back")) {
            char *pages = plain(n);
            write_pages(pages, n);
            munmap(pages, bytes);
        } else if (!strcmp(way, "old")) {
            char *pages = plain(n);
            write_pages(pages, n);
            write_old(pages, n);
        } else if (!strcmp(way, "threads")) {
            four_threads(n);
        } else if (!strcmp(way, "heap")) {
            heap_pages(n);
        }
        target_truth();
    }
}
