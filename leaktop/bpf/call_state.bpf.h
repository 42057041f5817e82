/* What is known of an allocator call between its entry and its end. Part of memleak.bpf.c. */

/* How the end of a call is seen. */
enum call_end {
	END_BY_TRAP = 0,	/* by a return probe, for which the kernel changed the return address */
	END_AT_RET,		/* by probes on the function's ret instructions */
	END_UNSEEN,		/* not at all: it was left out, and its return probe skipped */
};

/* What is unmapped or replaced, as much as is still to be ended; munmap's, too, which is no call that
 * allocates. It is ended in rounds of one piece. */
struct ending {
	u64 address, length;
	u64 sp;			/* user stack pointer at the function's entry */
	u32 pieces;		/* ended so far */
	u32 skip_end;		/* 1: the end of the function that does it need not be seen */
};

/* A thread's outermost allocator call. Only that one counts: what malloc calls inside, mmap for
 * an arena say, is its own business. */
struct call {
	u64 sp;			/* user stack pointer at entry; 0: no call is open */
	u64 function;		/* where it was entered */
	u64 size;		/* bytes asked for */
	u32 kind;		/* enum call_kind */
	u32 weight;		/* what a kept block counts; 0: filtered or sampled out */
	u32 end;		/* enum call_end */
	u32 old_held;		/* 1: `old` is valid */
	u64 caller;		/* its return address, unless `end` is END_BY_TRAP */
	u64 result;		/* posix_memalign: where it stores the block's address */
	u64 old_address;	/* realloc, mremap: the block that goes if the call succeeds */
	struct block old;	/* that block, taken off the books while the call runs */
	u64 rest;		/* mremap of a mapping's head or tail: bytes that stayed behind */
	u64 rest_in_front;	/* 1: they lie before `old`, else after it */
	u64 address;		/* what it gave out, once it has returned */
	struct ending ending;
};
