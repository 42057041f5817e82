/* bcc includes it for kernel pages; programs here read none. */
#include <linux/types.h>
