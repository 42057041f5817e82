/* What the kernel side and Python share. Python's half is leaktop/tracer/layout.py, which compares
 * sizes and field names with these when the program is loaded. Sizes are bytes, times nanoseconds
 * of CLOCK_MONOTONIC, addresses virtual ones in the target. */
#ifndef LEAKTOP_MEMLEAK_H
#define LEAKTOP_MEMLEAK_H

/* perf_event_max_stack's default (kernel/events/callchain.c); a deeper stack is cut. */
#define STACK_DEPTH_MAX 127

/* The number and the id of the row for allocations whose stack found no room: bytes are never lost
 * from the totals. */
#define STACK_UNFILED 0
#define STACK_ID_UNFILED 1

/* Libraries in one process that define malloc: its C library and one that takes its place. */
#define ALLOCATORS_MAX 4

/* How far tracing has come. While probes are being attached nothing is noted; then, for a moment,
 * calls are only followed, until those that began before have returned; then blocks count. */
enum phase {
	PHASE_OFF = 0,
	PHASE_FOLLOW,
	PHASE_COUNT,
};

/* Processes traced at once. Each has a slot, which the attach cookies of its probes name. */
#define PROCESSES_MAX 4096

/* Live settings for one process, written by user space as one value. */
struct config {
	u64 phase;		/* enum phase */
	u64 min_size;		/* smallest allocation to keep, bytes */
	u64 max_size;		/* largest allocation to keep, bytes */
	u64 sample_rate;	/* keep one of this many, at random; 1: all */
	u64 trampoline;		/* where uretprobes make functions return to; 0: not known yet */
	/* where the kernel keeps a return address that it changed for another tracer's return probe,
	 * in bytes from a structure's beginning */
	u64 task_uprobes;	/* task_struct: its uprobe_task; 0: none of these is known */
	u64 uprobes_return;	/* uprobe_task: the innermost return_instance */
	u64 return_sp;		/* return_instance: where the address lay */
	u64 return_address;	/* return_instance: the address */
	struct {
		u64 start, end;	/* code of an allocator's library, which unmaps memory of its own; */
	} allocators[ALLOCATORS_MAX];	/* 0..0: none */
};

/* An address in one of the processes, as a key: the process's slot from this bit on, where addresses
 * of user space have nothing (Documentation/arch/x86/x86_64/mm.rst; with five levels of page tables
 * only processes that ask for it get longer ones). */
#define KEY_SLOT_SHIFT 48

/* Which function a program was attached to, by what its arguments mean: the attach cookie. With
 * COOKIE_EXIT it runs where the function ends, at a ret or by a return probe. From bit
 * COOKIE_PUSHED_SHIFT on: words that the function has pushed by then; if any, its end is seen at
 * its rets. From COOKIE_SLOT_SHIFT on: the process's slot. */
#define COOKIE_EXIT 0x100
#define COOKIE_PUSHED_SHIFT 16
#define COOKIE_SLOT_SHIFT 32
enum entry {
	ENTRY_MALLOC = 0,	/* (size) */
	ENTRY_NEW,		/* (size), and an exception may end it */
	ENTRY_MEMALIGN,		/* (_, size) */
	ENTRY_CALLOC,		/* (number, size) */
	ENTRY_REALLOC,		/* (block, size) */
	ENTRY_REALLOCARRAY,	/* (block, number, size) */
	ENTRY_POSIX_MEMALIGN,	/* (where the block's address goes, alignment, size) */
	ENTRY_MMAP,		/* (address, length, protection, flags, file, offset) */
	ENTRY_MREMAP,		/* (old, old length, new length, flags, new) */
	ENTRY_MUNMAP,		/* (address, length) */
};

/* Which call made a block; decides what the return value means and what may free it. */
enum call_kind {
	CALL_MALLOC = 0,	/* returns the block or NULL */
	CALL_REALLOC,		/* the same, and takes one block away */
	CALL_POSIX_MEMALIGN,	/* returns 0 or an error; the block goes through a pointer */
	CALL_MMAP,		/* returns the mapping or MAP_FAILED */
	CALL_MREMAP,		/* the same, and takes one mapping away */
};

/* A live block, or a mapping that only munmap ends. */
struct block {
	u64 size;		/* bytes asked for; of mappings whole pages */
	u64 birth_ns;		/* when the allocation returned */
	u32 stack;		/* its stack's number */
	u32 weight;		/* how many allocations it stands for (the sample rate then) */
	u32 thread;		/* the thread that allocated it, as the kernel numbers it */
	u32 pad;
};

/* A block as it lies in its set, which has its thread elsewhere: so seven of them fit. */
struct set_block {
	u64 size;
	u64 birth_ns;
	u32 stack;
	u32 weight;
};

/* Live blocks whose keys mix to the same number: 4 lines of cache, the first of which says
 * whether a block is here. */
#define SET_WAYS 7
struct block_set {
	u64 key[SET_WAYS];	/* 0: free; lowest bit set: being filled */
	u32 spilled;		/* blocks that found no room here and lie in `spilled_blocks` */
	u32 thread[SET_WAYS];	/* of each block, valid where the key is */
	struct set_block block[SET_WAYS];	/* the same */
};

/* What one stack has done; every figure counts each block as often as its weight. A line of cache
 * each: processors that count for two stacks do not disturb each other. */
struct stack_stats {
	u64 bytes;		/* outstanding bytes */
	u64 allocs;		/* allocations so far */
	u64 frees;		/* frees so far; outstanding blocks are allocs - frees */
	u64 oldest_ns;		/* birth of the oldest block since the stack last held none */
	u64 oldest_freed;	/* 1: that block is gone, so oldest_ns is only a bound */
	u64 log;		/* 1: what it does goes to `events` */
	u64 alloc_bytes;	/* bytes of all allocations so far */
	u64 pad;
};

/* Frees of one stack by how long the block had been held, each counted as often as its weight. Band i
 * is from 2^(LIFETIME_SHIFT + i - 1) ns on, the last one open; what was held for less is in no band,
 * but in stack_stats.frees, as all are. */
#define LIFETIME_BANDS 24
#define LIFETIME_SHIFT 20
struct stack_lifetimes {
	u64 frees[LIFETIME_BANDS];	/* by band; the first is 0 */
};

/* What an event was. */
enum event_kind {
	EVENT_ALLOC = 0,	/* a block or mapping came on the books */
	EVENT_FREE,		/* it went off them */
	EVENT_TRIM,		/* a head or tail of a mapping did */
};

/* One change of what a stack holds. */
struct event {
	u64 time_ns;
	u64 address;		/* with the slot, as in a block's key; of what a trim took off */
	u64 size;		/* bytes that came or went */
	u32 thread;		/* that did it, as the kernel numbers it */
	u32 stack;		/* number of the stack that allocated it */
	u32 weight;		/* of the block */
	u32 kind;		/* enum event_kind */
};

/* Whether a stack is whole. */
enum truncation {
	WHOLE = 0,		/* its last frame is the outermost */
	TRUNCATED,		/* there were more frames */
	ASKED,			/* there were more, and a question on its way can complete it */
};

/* A call stack. */
struct stack {
	u64 id;			/* a mix of all that follows */
	u32 slot;		/* of its process */
	u16 depth;		/* frames used */
	u16 truncated;		/* enum truncation */
	u64 pc[STACK_DEPTH_MAX];	/* return addresses, innermost first; 0 past depth */
};

/* Registers that a callee saves, in the order of a rule's slots: rbp, rbx, r12 to r15. */
#define SAVED_REGISTERS 6

/* Where a frame's CFA is found. */
enum frame_base {
	BASE_OUTERMOST = 0,	/* there is no caller */
	BASE_UNKNOWN,		/* no rule can say it: the walk ends, truncated */
	BASE_SP,		/* from the stack pointer */
	BASE_SAVED,		/* BASE_SAVED + i: from the i-th saved register */
};

enum frame_flag {
	FLAG_LOADED = 1,	/* the CFA's base is the word at base + load_offset */
	FLAG_SLOTS_FROM_FP = 2,	/* slots count from the frame pointer, not from the CFA */
	FLAG_SIGNAL = 4,	/* made by the kernel for a signal handler */
};

/* Values of a slot that are no place. */
#define SLOT_SAME 127		/* the caller's register has the same value */
#define SLOT_LOST 126		/* it cannot be followed */

/* How to leave the frame of one code address: the caller's frame begins at the CFA, its return
 * address lies 8 bytes below (DWARF 5, 6.4; System V ABI x86-64, 3.2). */
struct frame_rule {
	s32 cfa_offset;		/* added to the base, bytes */
	s32 load_offset;	/* FLAG_LOADED: where the base is loaded from, bytes */
	u8 base;		/* enum frame_base */
	u8 flags;		/* enum frame_flag */
	u8 slots[SAVED_REGISTERS];	/* where each saved register lies, in words: an s8, of which
					 * bcc knows no array */
};

/* How much of the stack goes with a question; how much while many wait. */
#define IMAGE_BYTES 16384
#define BRIEF_IMAGE_BYTES 2048

/* A stack that ends at a code address without a rule: what user space needs to answer with the
 * rule, and to complete this very stack from what lay on it: the image, which follows. */
struct question {
	u64 stack_id;		/* the stack's id, which no other has; 0: only the rules are wanted */
	u64 pc;			/* code address without a rule */
	u64 registers[SAVED_REGISTERS];	/* saved registers in that frame, in a rule's order */
	u64 sp;			/* stack pointer in that frame */
	u32 slot;		/* of the process */
	u32 lost;		/* bit i: registers[i] cannot be followed */
	u64 image_start;	/* address that the image begins at */
	u64 image_size;		/* bytes of image that could be read */
};

/* What leaktop -k is to see, written once before it counts. */
#define PAGE_TAKERS_MAX 16
struct kernel_config {
	u64 own_pid;		/* leaktop's process (tgid), whose allocations count as its own */
	u64 pid;		/* process whose allocations count; 0: everybody's */
	u64 namespace_device;	/* PID namespace that both are numbered in: device and inode of its */
	u64 namespace_inode;	/* file; 0: the initial one */
	u64 missing_frees;	/* 1: a free that was not seen is no loss where it shows later */
	struct {
		u64 start, end;	/* code of a function that takes pages to hand them out in pieces, */
	} page_takers[PAGE_TAKERS_MAX];	/* which count then, not the pages; 0..0: none */
};

/* The slot of stacks of the kernel while leaktop itself runs; 0 of others. */
#define SLOT_OWN 1

/* The name of a slab cache; what is longer is cut. */
#define CACHE_NAME_MAX 48
struct cache_name {
	u8 text[CACHE_NAME_MAX];	/* ends with 0 */
};

/* Index of each named loss in `losses`; model.LOSSES has the same names in this order. */
enum loss {
	LOST_ALLOCS_FULL = 0,
	LOST_STACKS_FULL,
	LOST_TRUNCATED,
	LOST_THREADS_FULL,
	LOST_MISSED_RETURNS,
	LOST_MISSED_FREES,
	LOST_UNMATCHED_UNMAPS,
	LOST_MAPPING_ENDS_FULL,
	LOST_UNREAD_RESULTS,
	LOST_RULES_FULL,	/* counted by user space */
	LOST_MISSED_EVENTS,	/* counted by the kernel */
	LOST_EVENTS_DROPPED,
	LOSS_COUNT,
};

_Static_assert(sizeof(struct config) == 136, "layout.py: CONFIG");
_Static_assert(sizeof(struct block) == 32, "layout.py: BLOCK");
_Static_assert(sizeof(struct set_block) == 24, "layout.py: SET_BLOCK");
_Static_assert(sizeof(struct block_set) == 256, "layout.py: BLOCK_SET");
_Static_assert(sizeof(struct stack_stats) == 64, "layout.py: STACK_STATS");
_Static_assert(sizeof(struct stack_lifetimes) == 192, "layout.py: STACK_LIFETIMES");
_Static_assert(sizeof(struct event) == 40, "layout.py: EVENT");
_Static_assert(sizeof(struct frame_rule) == 16, "layout.py: FRAME_RULE");
_Static_assert(sizeof(struct question) == 96, "layout.py: QUESTION");
_Static_assert(sizeof(struct kernel_config) == 296, "layout.py: KERNEL_CONFIG");
_Static_assert(sizeof(struct cache_name) == 48, "layout.py: CACHE_NAME");
_Static_assert(sizeof(struct stack) == 1032, "layout.py: STACK");

#endif
