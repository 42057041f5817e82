/* The instruction encoding, which only handwritten BPF bytecode would need. */
#include <linux/types.h>
