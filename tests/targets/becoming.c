/* becoming PROGRAM: "leak" keeps five blocks; "become" executes PROGRAM in its place. */
#include "target.h"

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    target_ready();
    for (;;) {
        const char *what = target_wait();
        if (!strcmp(what, "become")) {
            execl(argv[1], argv[1], (char *)NULL);
            die("exec");
        }
        for (int i = 0; i < 5; i++) {
            void *block = malloc(100); HELD(100);
            KEEP(block);
        }
        target_truth();
    }
}
