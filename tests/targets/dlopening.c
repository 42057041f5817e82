/* A library that is loaded while being traced, and allocates; the argument is its path. */
#include "target.h"
#include <dlfcn.h>

static const char *library;

static NOINLINE void use_plugin(void)
{
    void *handle = dlopen(library, RTLD_NOW);
    if (!handle)
        die(dlerror());
    void *(*allocate)(size_t, int *) = (void *(*)(size_t, int *))dlsym(handle, "plugin_allocate");
    for (int i = 1; i <= 20; i++) {
        int line;
        void *block = allocate((size_t)i * 10, &line);
        struct site *site = add_held(site_of("plugin_allocate", line), (size_t)i * 10);
        if (i % 4 == 0) {
            free(block);
            freed(site, (size_t)i * 10);
        }
    }
}

int main(int argc, char **argv)
{
    library = argc > 1 ? argv[1] : "./libplugin.so";
    target_run(use_plugin);
}
