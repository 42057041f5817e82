/* What the kernel side of growth mode and Python share beyond memleak.h. Python's half is
 * leaktop/tracer/layout.py. */
#ifndef LEAKTOP_GROWTH_H
#define LEAKTOP_GROWTH_H

/* The slot of the one process that there is; see memleak.h. */
#define GROWTH_SLOT 1

/* Live settings of growth mode, written by user space as one value. */
struct growth_config {
	u64 phase;		/* enum phase */
	u64 sample_rate;	/* look at one fault of this many, at random; 1: at all */
	u64 pid;		/* process (tgid), as the initial PID namespace numbers it */
};

_Static_assert(sizeof(struct growth_config) == 24, "layout.py: GROWTH_CONFIG");

#endif
