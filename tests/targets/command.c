/*
 * A command that leaktop starts. It allocates in a constructor, in main and in a destructor, prints
 * the truth, and ends as its arguments say:
 *   exit CODE ARG...   return from main; the arguments are printed first, one a line
 *   kill SIGNAL        by this signal
 *   wait               on SIGTERM or SIGINT, by returning 7; "ready PID" is printed first
 *   ignore             not on SIGTERM: each one is told
 *   write FILE         on SIGTERM; each SIGUSR1 has it print, and say in FILE whether it could
 */
#include "target.h"
#include <fcntl.h>

enum { KEPT = 8 };

static void *kept[KEPT];
static struct site *early_site;

__attribute__((constructor)) static void early(void)
{
    for (int i = 0; i < 3; i++) {
        kept[i] = malloc(111); early_site = HELD(111);
        KEEP(kept[i]);
    }
}

__attribute__((destructor)) static void late(void)
{
    free(kept[0]);
    freed(early_site, 111);
    target_truth();
}

static NOINLINE void leak(void)
{
    for (int i = 3; i < KEPT; i++) {
        kept[i] = malloc(1000); HELD(1000);
        KEEP(kept[i]);
    }
}

static int wait_for(int first, int second)
{
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, first);
    sigaddset(&set, second);
    sigprocmask(SIG_BLOCK, &set, NULL);
    target_print("ready %d\n", getpid());
    sigwait(&set, &number);
    return number;
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "exit";
    leak();
    if (!strcmp(how, "kill")) {
        target_truth();
        raise(atoi(argv[2]));
    } else if (!strcmp(how, "wait")) {
        target_print("got %d\n", wait_for(SIGTERM, SIGINT));
        return 7;
    } else if (!strcmp(how, "ignore")) {
        for (;;)
            target_print("ignores %d\n", wait_for(SIGTERM, SIGTERM));
    } else if (!strcmp(how, "write")) {
        while (wait_for(SIGUSR1, SIGTERM) == SIGUSR1) {
            const char *said = write(STDOUT_FILENO, "said\n", 5) == 5 ? "yes\n" : "no\n";
            int file = open(argv[2], O_WRONLY | O_APPEND | O_CREAT, 0600);
            if (file < 0 || write(file, said, strlen(said)) < 0 || close(file))
                die(argv[2]);
        }
    }
    for (int i = 3; i < argc; i++)
        target_print("argument %s\n", argv[i]);
    return argc > 2 ? atoi(argv[2]) : 0;
}
