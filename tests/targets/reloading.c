/* Loads a library in the place of another: "PATH" closes the one before, and calls reload_hold in
 * the new one, which holds a block and calls back. Prints the stack as backtrace(3) saw it. */
#include "target.h"
#include <dlfcn.h>
#include <execinfo.h>

enum { FRAMES_MAX = 32 };

static void *library, *hold;
static char loaded[256];

NOINLINE void note(void)
{
    void *frames[FRAMES_MAX];
    int depth = backtrace(frames, FRAMES_MAX);
    target_print("[{\"function\":\"reload_hold\",\"bytes\":1700,\"inner\":0,\"signals\":0,"
                 "\"frames\":[");
    for (int i = 0; i < depth; i++)
        target_print("%s%lu", i ? "," : "", (unsigned long)frames[i]);
    target_print("]}]\n");
}

NOINLINE void load(const char *path)
{
    if (!strcmp(path, loaded))
        return;
    if (library && dlclose(library))
        die(dlerror());
    library = dlopen(path, RTLD_NOW);
    if (!library)
        die(dlerror());
    void *now = dlsym(library, "reload_hold");
    if (hold && hold != now)
        die("the library lies elsewhere");
    hold = now;
    strcpy(loaded, path);
}

int main(void)
{
    void *frame;
    backtrace(&frame, 1); /* it loads a library */
    target_ready();
    for (;;) {
        load(target_wait());
        ((void (*)(void (*)(void)))hold)(note);
    }
}
