/* bcc brings its own copy of the BPF interface; this name only leads to the types. */
#include <linux/types.h>
