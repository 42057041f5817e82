/* bcc's C dialect, as memleak.bpf.c. The kernel half of `leaktop -k`: what the kernel allocates, by
 * its own tracepoints. Where an event's fields lie differs between kernels: user space reads it from
 * the tracepoint's format and compiles it in, EVENT_FIELD as bytes from the record's beginning. A
 * program exists where its event does.
 *
 * The kernel runs programs on tracepoints with preemption off, and none while another such program
 * runs on the same processor (trace_call_bpf, kernel/trace/bpf_trace.c): per-CPU memory is theirs
 * alone. An event that comes then, in an interrupt, is passed over, which the kernel counts. */
#include <uapi/linux/ptrace.h>
#include "memleak.h"

/* Highest order of pages plus 1, MAX_PAGE_ORDER (include/linux/mmzone.h): an end for loops. */
#define ORDERS 11
/* Innermost frames in which the caller of the allocator is looked for: what traces is never as deep,
 * and behind it come the allocator's own functions. */
#define INNER_FRAMES_MAX 8
/* Slab caches there may be; there are some hundreds. */
#define CACHES_MAX 4096
#define CACHE_NAME_WORDS 6	/* CACHE_NAME_MAX as words; bcc describes no array of computed size */
_Static_assert(CACHE_NAME_WORDS * sizeof(u64) == CACHE_NAME_MAX, "whole words");

/* What a record says; fields lie where the format says, whatever their type is called. */
#define FIELD(type, offset) (*(type *)((char *)ctx + (offset)))

/* Under another name, as read_user in memleak.bpf.c. */
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)
	BPF_FUNC_probe_read_kernel;
static long (*read_kernel_text)(void *to, u32 size, const void *from) = (void *)
	BPF_FUNC_probe_read_kernel_str;

/* What -k is to see. key: 0, value: struct kernel_config. */
BPF_ARRAY(kernel_config, struct kernel_config, 1);

#include "base.bpf.h"

#include "settings.bpf.h"

#include "stacks.bpf.h"

#include "counting.bpf.h"

#include "blocks.bpf.h"

/* What is too large for a program's own stack. */
struct scratch {
	struct stack stack;
	/* as the kernel gives it; words past the last frame stay 0, so that a copy may begin later */
	u64 frames[STACK_DEPTH_MAX + INNER_FRAMES_MAX];
	/* which of them is the innermost; in map memory, of which the verifier tracks no contents: else
	 * it would follow what comes after for each value */
	u64 first;
	u64 name[CACHE_NAME_WORDS];	/* a struct cache_name, by words */
};

/* Room to work in. key: 0. */
BPF_PERCPU_ARRAY(scratches, struct scratch, 1);
/* Names of slab caches. key: a mix of the name, which is a frame of stacks (see number_here). */
BPF_TABLE("hash", u64, struct cache_name, cache_names, CACHES_MAX);

/* ---- what is held, under which key ---- */

/* Objects and pages have keys that no other kind has: an object its address, which lies in the upper
 * half; pages their physical address, marked by a bit that is set in no address of the lower half;
 * per-CPU memory its address, any number divisible by 4 (PCPU_MIN_ALLOC_SIZE), marked by a low bit. */
#define PAGES_MARK (1ULL << 62)
#define PERCPU_MARK 2

static __always_inline u64 page_key(u64 pfn)
{
	return PAGES_MARK | pfn * PAGE_SIZE;
}

/* What was there is gone, whether its free was seen or not. */
static __always_inline void replace(u64 key, const struct kernel_config *kernel)
{
	struct block before;

	if (!take_block(key, &before))
		return;
	count_free(key, &before, before.size, 1);
	if (!kernel->missing_frees)
		lose(LOST_MISSED_FREES);
}

/* ---- who allocates ---- */

/* The process that runs, by the numbers that leaktop itself goes by; 0 where it has none. */
static __always_inline u64 this_process(const struct kernel_config *kernel)
{
	struct bpf_pidns_info here = {};

	if (!kernel->namespace_inode)
		return bpf_get_current_pid_tgid() >> 32;
	if (bpf_get_ns_current_pid_tgid(kernel->namespace_device, kernel->namespace_inode, &here,
					sizeof(here)))
		return 0;
	return here.tgid;
}

/* What an interrupt allocates is nobody's, whoever runs. Only the stack tells, by names, so user space
 * has the last word. */
static __always_inline int is_left_out(const struct kernel_config *kernel, u64 pid)
{
	return kernel->pid && pid != kernel->pid;
}

/* ---- stacks ---- */

/* Read the stack's frames, and find which is the innermost: the caller of the allocator where its
 * return address is known and met. Frames before it are those of what traces. */
static __always_inline void read_frames(void *ctx, struct scratch *scratch, u64 caller)
{
	long size = bpf_get_stack(ctx, scratch->frames, STACK_DEPTH_MAX * sizeof(u64), 0);

	scratch->stack.depth = size > 0 ? size / sizeof(u64) : 0;
	if (!scratch->stack.depth) {	/* no unwinder, or none that gets on from here */
		scratch->frames[0] = caller;
		scratch->stack.depth = !!caller;
	}
	scratch->first = 0;
#pragma clang loop unroll(full)
	for (u32 i = INNER_FRAMES_MAX - 1; i; i--)	/* bound: see there */
		if (caller && scratch->frames[i] == caller)
			scratch->first = i;
	asm volatile("" : : : "memory");	/* read again where it is used */
}

/* Number of the stack that was read. Its frame 0 is the slab cache's name, by its key in
 * `cache_names`, or 0. */
static __always_inline u32 number_here(struct scratch *scratch, u64 cache, u32 slot)
{
	struct stack *stack = &scratch->stack;
	u32 depth = stack->depth, first = scratch->first & (INNER_FRAMES_MAX - 1), number;
	u64 id = mix(mix(STACK_ID_SEED, slot), cache);

	stack->truncated = depth >= STACK_DEPTH_MAX ? TRUNCATED : WHOLE;
	if (stack->truncated)
		lose(LOST_TRUNCATED);
	depth = depth > first ? depth - first : 0;
	if (depth > STACK_DEPTH_MAX - 1)
		depth = STACK_DEPTH_MAX - 1;
	stack->slot = slot;
	stack->pc[0] = cache;
	read_kernel(&stack->pc[1], (STACK_DEPTH_MAX - 1) * sizeof(u64), &scratch->frames[first]);
	stack->depth = depth + 1;
#pragma clang loop unroll(disable)
	for (u32 i = 1; i < STACK_DEPTH_MAX; i++) {	/* bound: the array's size */
		asm volatile("" : "+r"(depth));	/* else clang counts down, and hides the bound */
		if (i > depth)
			break;
		id = mix(id, stack->pc[i]);
	}
	id = mix(id, stack->truncated);
	stack->id = id <= STACK_ID_UNFILED ? id + STACK_ID_UNFILED + 1 : id;
	number = number_of(stack);
	if (number == STACK_UNFILED)
		lose(LOST_STACKS_FULL);
	return number;
}

/* Whether the pages being allocated are taken by a function that hands them out in pieces: one of the
 * innermost callers. */
static __always_inline int is_page_taker(const struct scratch *scratch,
					 const struct kernel_config *kernel)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < INNER_FRAMES_MAX; i++) {	/* bound: see there */
		u64 pc = scratch->frames[i];

#pragma clang loop unroll(disable)
		for (u32 j = 0; j < PAGE_TAKERS_MAX; j++) {	/* bound: the array's size */
			if (!kernel->page_takers[j].end)
				break;
			/* a return address may lie just past its function */
			if (pc > kernel->page_takers[j].start && pc <= kernel->page_takers[j].end)
				return 1;
		}
	}
	return 0;
}

/* ---- allocations and frees ---- */

/* Put a block on the books that was just given out; `caller` is the return address of the allocator's
 * function where the event has it, `cache` a key in `cache_names` or 0. */
static __always_inline void count_in(void *ctx, u64 key, u64 size, u64 caller, u64 cache)
{
	u32 zero = 0;
	const struct config *settings = config.lookup(&zero);
	const struct kernel_config *kernel = kernel_config.lookup(&zero);
	struct scratch *scratch = scratches.lookup(&zero);
	struct block block = { .size = size };
	u64 pid;

	if (!settings || !kernel || !scratch || settings->phase != PHASE_COUNT)
		return;
	replace(key, kernel);
	pid = this_process(kernel);
	if (is_left_out(kernel, pid))
		return;
	block.weight = weight_of(size, settings);
	if (!block.weight)
		return;
	read_frames(ctx, scratch, caller);
	if (key & PAGES_MARK && !(key >> 63) && is_page_taker(scratch, kernel))
		return;
	block.stack = number_here(scratch, cache, pid == kernel->own_pid ? SLOT_OWN : 0);
	block.birth_ns = bpf_ktime_get_ns();
	block.thread = bpf_get_current_pid_tgid();
	if (put_block(key, &block))
		count_alloc(key, &block);
	else
		lose(LOST_ALLOCS_FULL);
}

static __always_inline void count_out(u64 key)
{
	struct block block;

	if (take_block(key, &block))
		count_free(key, &block, block.size, 1);
}

/* The key of a slab cache's name, which the record holds: its length and where, in one word
 * (__data_loc, include/trace/stages/stage1_struct_define.h). 0 where there is no room. */
static __always_inline u64 cache_key(void *ctx, u32 where)
{
	u32 zero = 0;
	struct scratch *scratch = scratches.lookup(&zero);
	u64 key = STACK_ID_SEED;

	if (!scratch)
		return 0;
#pragma clang loop unroll(full)
	for (u32 i = 0; i < CACHE_NAME_WORDS; i++)	/* bound: the name's words */
		scratch->name[i] = 0;
	read_kernel_text(scratch->name, CACHE_NAME_MAX, (char *)ctx + (where & 0xffff));
#pragma clang loop unroll(full)
	for (u32 i = 0; i < CACHE_NAME_WORDS; i++)	/* bound: the same */
		key = mix(key, scratch->name[i]);
	if (!cache_names.lookup(&key) && cache_names.update(&key, (struct cache_name *)scratch->name))
		return 0;
	return key;
}

/* ---- programs ---- */

#define OBJECT_PROGRAM(function, EVENT, cache)					\
int function(void *ctx)								\
{										\
	u64 address = FIELD(u64, EVENT##_PTR);					\
										\
	if (address)								\
		count_in(ctx, address, FIELD(u64, EVENT##_BYTES_ALLOC),		\
			 FIELD(u64, EVENT##_CALL_SITE), cache);			\
	return 0;								\
}

#ifdef KMALLOC
OBJECT_PROGRAM(on_kmalloc, KMALLOC, 0)
#endif

#ifdef KMALLOC_NODE
OBJECT_PROGRAM(on_kmalloc_node, KMALLOC_NODE, 0)
#endif

/* What frees objects runs as raw tracepoints, which other programs do not keep out (__bpf_trace_run):
 * RCU gives back what it has in one go, in an interrupt that may well come while a program reads a
 * stack. Their arguments begin alike on all kernels. */

#ifdef KFREE
int on_kfree(u64 *ctx)	/* (call site, object) */
{
	count_out(ctx[1]);
	return 0;
}
#endif

#ifdef KMEM_CACHE_ALLOC
#ifdef KMEM_CACHE_ALLOC_NAME
OBJECT_PROGRAM(on_kmem_cache_alloc, KMEM_CACHE_ALLOC,
	       cache_key(ctx, FIELD(u32, KMEM_CACHE_ALLOC_NAME)))
#else
OBJECT_PROGRAM(on_kmem_cache_alloc, KMEM_CACHE_ALLOC, 0)
#endif
#endif

#ifdef KMEM_CACHE_ALLOC_NODE
OBJECT_PROGRAM(on_kmem_cache_alloc_node, KMEM_CACHE_ALLOC_NODE, 0)
#endif

#ifdef KMEM_CACHE_FREE
int on_kmem_cache_free(u64 *ctx)	/* (call site, object, cache) */
{
	count_out(ctx[1]);
	return 0;
}
#endif

#ifdef MM_PAGE_ALLOC
int on_mm_page_alloc(void *ctx)
{
	u64 pfn = FIELD(u64, MM_PAGE_ALLOC_PFN);

	if (pfn != ~0ULL)	/* of an allocation that failed */
		count_in(ctx, page_key(pfn), PAGE_SIZE << FIELD(u32, MM_PAGE_ALLOC_ORDER), 0, 0);
	return 0;
}
#endif

#ifdef MM_PAGE_FREE
/* Free pages within a larger block, which split_page has made several of: what is left stays held,
 * in pieces as the buddy allocator would have them, each by itself. */
static __always_inline void split_block(struct block *block, u64 pfn, u32 order)
{
	u64 size = block->size;

	count_free(page_key(pfn), block, PAGE_SIZE << (order & 63), 0);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < ORDERS; i++) {	/* bound: orders there are */
		if (i < order)
			continue;
		block->size = PAGE_SIZE << i;
		if (block->size >= size)
			break;
		if (put_block(page_key((pfn >> i ^ 1) << i), block)) {
			count_pieces(block, 1);
		} else {
			lose(LOST_ALLOCS_FULL);
			count_free(page_key((pfn >> i ^ 1) << i), block, block->size, 0);
		}
	}
	count_pieces(block, -1);	/* itself */
}

int on_mm_page_free(void *ctx)
{
	u64 pfn = FIELD(u64, MM_PAGE_FREE_PFN), start, found = 0, before = ~0ULL;
	u32 order = FIELD(u32, MM_PAGE_FREE_ORDER);
	struct block block;

	/* A block of pages begins at a multiple of its size, so there are only as many that these can
	 * be in as there are orders. */
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < ORDERS; i++) {	/* bound: orders there are */
		start = pfn >> i << i;
		if (i < order || start == before)
			continue;
		before = start;
		if (size_held(page_key(start)) > (pfn - start) * PAGE_SIZE) {	/* ends behind them */
			found = page_key(start);
			break;
		}
	}
	if (!found || !take_block(found, &block))
		return 0;
	/* read again: else the verifier goes on with what each way out of the loop says of it */
	order = FIELD(volatile u32, MM_PAGE_FREE_ORDER);
	if (found == page_key(pfn) && block.size <= PAGE_SIZE << (order & 63))
		count_free(found, &block, block.size, 1);
	else
		split_block(&block, pfn, order);
	return 0;
}
#endif

#ifdef PERCPU_ALLOC_PERCPU
int on_percpu_alloc_percpu(void *ctx)
{
	u64 address = FIELD(u64, PERCPU_ALLOC_PERCPU_PTR);
#ifdef PERCPU_ALLOC_PERCPU_BYTES_ALLOC
	u64 size = FIELD(u64, PERCPU_ALLOC_PERCPU_BYTES_ALLOC);
#else
	u64 size = FIELD(u64, PERCPU_ALLOC_PERCPU_SIZE) * PROCESSORS;
#endif
	u64 caller = 0;

#ifdef PERCPU_ALLOC_PERCPU_CALL_SITE
	caller = FIELD(u64, PERCPU_ALLOC_PERCPU_CALL_SITE);
#endif
	if (address)
		count_in(ctx, address | PERCPU_MARK, size, caller, 0);
	return 0;
}
#endif

#ifdef PERCPU_FREE_PERCPU
int on_percpu_free_percpu(void *ctx)
{
	count_out(FIELD(u64, PERCPU_FREE_PERCPU_PTR) | PERCPU_MARK);
	return 0;
}
#endif
