/*
 * What the test targets share: a conversation over stdin and stdout, and exact bookkeeping.
 *
 * A target prints "ready PID", waits for a line that says to go, works, prints one line of JSON with
 * the truth, and so on until "quit" or the end of its input. Nothing here calls an allocator, so the
 * truth is all that there is to see.
 */
#ifndef TARGET_H
#define TARGET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
/* Keeps the compiler from dropping an allocation that nobody reads. */
#define KEEP(block) __asm__ volatile("" : : "r"(block) : "memory")

enum { MAX_SITES = 64, PAGE = 4096 };

struct site {
    const char *function;
    int line; /* of the call of the allocator */
    unsigned long long bytes, count, allocs, frees;
};

static struct site sites[MAX_SITES];
static int n_sites;
static unsigned long long target_checksum;

static inline void die(const char *what)
{
    perror(what);
    _exit(1);
}

static inline struct site *site_of(const char *function, int line)
{
    for (int i = 0; i < n_sites; i++)
        if (sites[i].line == line && !strcmp(sites[i].function, function))
            return &sites[i];
    if (n_sites == MAX_SITES)
        abort();
    sites[n_sites] = (struct site){.function = function, .line = line};
    return &sites[n_sites++];
}

static inline struct site *add_held(struct site *site, unsigned long long bytes)
{
    site->bytes += bytes;
    site->count++;
    site->allocs++;
    return site;
}

/* Use on the line of the allocator's call, which is the line that leaktop has to name. */
#define HELD(bytes) add_held(site_of(__func__, __LINE__), bytes)

static inline void freed(struct site *site, unsigned long long bytes)
{
    site->bytes -= bytes;
    site->count--;
    site->frees++;
}

/* Reads a line of at most size-1 bytes; ends the target where it is told to quit. */
static inline char *target_read(char *line, size_t size)
{
    size_t n = 0;
    char c;
    while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n')
        if (n + 1 < size)
            line[n++] = c;
    line[n] = 0;
    if (!n || !strcmp(line, "quit"))
        _exit(0);
    return line;
}

static inline char *target_wait(void)
{
    static char line[256];
    return target_read(line, sizeof line);
}

/* dprintf would allocate. */
__attribute__((format(printf, 1, 2))) static inline void target_print(const char *format, ...)
{
    static char text[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text || write(STDOUT_FILENO, text, length) != length)
        die("print");
}

static inline void target_ready(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    target_print("ready %d\n", getpid());
}

static inline void target_truth(void)
{
    target_print("{\"checksum\":%llu,\"sites\":[", target_checksum);
    for (int i = 0; i < n_sites; i++)
        target_print("%s{\"function\":\"%s\",\"line\":%d,\"bytes\":%llu,\"count\":%llu,"
                     "\"allocs\":%llu,\"frees\":%llu}",
                     i ? "," : "", sites[i].function, sites[i].line, sites[i].bytes,
                     sites[i].count, sites[i].allocs, sites[i].frees);
    target_print("]}\n");
}

/* For targets that do one thing: work once, tell, and stay until told to quit. */
static inline void target_run(void (*work)(void))
{
    target_ready();
    target_wait();
    work();
    target_truth();
    for (;;)
        target_wait();
}

#endif
