/* bcc sizes its perf rings with this one. */
#include <linux/types.h>

#define roundup_pow_of_two(n) (1UL << (64 - __builtin_clzl((unsigned long)(n) - 1)))
