/* The registers at a probe are the architecture's. */
#include <linux/types.h>
#include <asm/ptrace.h>
