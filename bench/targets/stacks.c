/* Holds blocks under many call stacks: stacks STACKS BLOCKS. The line "fill" makes BLOCKS blocks of
 * 64 bytes, in turn under each of STACKS stacks, and is answered by "filled"; "one" makes a single
 * one and is answered by "made". "steady" is answered by "steady"; from then on, until standard input ends, ten times a second 100 blocks come and go, and
 * once a second one stack in ten gets a block that stays. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int levels;

__attribute__((noinline)) static void *right(unsigned path, int left_over);

/* Which of the two calls each level makes is a bit of the path: as many stacks as paths. */
__attribute__((noinline)) static void *left(unsigned path, int left_over)
{
    void *block;
    if (left_over == 0)
        block = malloc(64);
    else if (path & 1)
        block = right(path >> 1, left_over - 1);
    else
        block = left(path >> 1, left_over - 1);
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

__attribute__((noinline)) static void *right(unsigned path, int left_over)
{
    void *block;
    if (left_over == 0)
        block = malloc(64);
    else if (path & 1)
        block = right(path >> 1, left_over - 1);
    else
        block = left(path >> 1, left_over - 1);
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

static void be_steady(unsigned stacks)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    for (unsigned turn = 0; poll(&input, 1, 100) == 0; turn++) {
        for (unsigned i = 0; i < 100; i++)
            free(left(i % stacks, levels));
        if (turn % 10 == 0)
            for (unsigned path = 0; path < stacks; path += 10)
                left(path, levels);
    }
}

int main(int argc, char **argv)
{
    unsigned stacks = argc > 1 ? (unsigned)atol(argv[1]) : 1;
    unsigned blocks = argc > 2 ? (unsigned)atol(argv[2]) : 1;
    char line[16];

    while (1u << levels < stacks)
        levels++;
    setbuf(stdin, NULL); /* poll knows nothing of what a buffer holds */
    setbuf(stdout, NULL);
    printf("ready %d\n", getpid());
    while (fgets(line, sizeof line, stdin)) {
        if (strcmp(line, "fill\n") == 0) {
            for (unsigned i = 0; i < blocks; i++)
                left(i % stacks, levels);
            puts("filled");
        } else if (strcmp(line, "one\n") == 0) {
            left(0, levels);
            puts("made");
        } else if (strcmp(line, "steady\n") == 0) {
            puts("steady");
            be_steady(stacks);
        }
    }
    return 0;
}
