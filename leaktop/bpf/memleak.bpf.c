/* bcc's C dialect, compiled at start by libbcc: not CO-RE, no vmlinux.h, and `map.lookup(&key)`
 * is rewritten into helper calls. The kernel half of leaktop's exact accounting of outstanding
 * memory by call stack; ARCHITECTURE.md follows one malloc through it. Its parts, *.bpf.h,
 * are put in place by the loader, since bcc rewrites map operations in one file only. */
#include <uapi/linux/ptrace.h>
#include "memleak.h"

#define PAGE_LOW_BITS (PAGE_SIZE - 1)
#define MAX_ERRNO 4095		/* a system call's error is the last 4095 values */
#define MAP_FIXED 0x10		/* mmap(2): replaces what was mapped there */
#define MREMAP_FIXED 2		/* mremap(2): the same */
#define MREMAP_DONTUNMAP 4	/* mremap(2): the old range stays mapped */

/* How many mappings one munmap may end: a bound for the verifier, which follows each round; what
 * is left after as many is counted as unmatched. */
#define UNMAP_PIECES_MAX 8

/* bpf_probe_read_user under another name: bcc reads all of /proc/kallsyms for each call by that one
 * (src/cc/frontends/clang/b_frontend_action.cc), to see whether the kernel has it; 5.5 and later do
 * (kernel commit 6ae08ae3dea2). That is 0.1 s a call at start-up. */
static long (*read_user)(void *to, u32 size, const void *from) = (void *)BPF_FUNC_probe_read_user;

/* A thread's outermost allocator call. Only that one counts: what malloc calls inside, mmap for
 * an arena say, is its own business. */
struct call {
	u64 sp;			/* user stack pointer at entry; 0: no call is open */
	u64 size;		/* bytes asked for */
	u64 result;		/* posix_memalign: where it stores the block's address */
	u32 kind;		/* enum call_kind */
	u32 weight;		/* what a kept block counts; 0: filtered or sampled out */
	u64 old_address;	/* realloc, mremap: the block that goes if the call succeeds */
	struct block old;	/* that block, taken out of `blocks` while the call runs */
	u32 old_held;		/* 1: `old` is valid */
	u16 rest_in_front;	/* 1: what stayed behind lies before `old`, else after it */
	u16 exits_at_ret;	/* 1: its end is seen at its ret instructions, not by a return probe */
	u64 rest;		/* mremap of a mapping's head or tail: bytes that stayed behind */
	u64 function;		/* where it was entered */
	u64 caller;		/* exits_at_ret: its return address, which no return probe changed */
};

/* One thread's state. The stack lies here and not in per-CPU memory, since uprobe programs can
 * be preempted by another thread's (bpf_prog_run_array_uprobe, kernel commit 8c7dcb84e3b7,
 * disables migration only). */
struct thread {
	struct call call;
	struct stack stack;	/* the stack of the call that is returning */
	u64 registers[SAVED_REGISTERS];	/* saved registers when that call returned */
	/* Where on the stack each of them was met last; 0: it is still in the register, 1: it cannot
	 * be followed. In map memory, of which the verifier tracks no contents: fewer states. */
	u64 saved_at[SAVED_REGISTERS];
};

/* Live settings. key: 0, value: struct config. */
BPF_ARRAY(config, struct config, 1);
/* Losses by name. key: enum loss, value: how often. */
BPF_ARRAY(losses, u64, LOSS_COUNT);
/* Calls under way. key: pid_tgid, value: that thread's state. LRU: a thread needs its entry only
 * while a call runs, so the entries of threads that ended are the ones reused. */
BPF_TABLE("lru_hash", u64, struct thread, threads, THREADS_MAX);
/* A thread's first state, all zero: too large for the program's stack. key: 0. */
BPF_ARRAY(blank_thread, struct thread, 1);
/* Live blocks. key: (address, process), value: size, birth, stack, weight. Mappings that do not
 * count, since they are older than the tracing or were left out, are here with weight 0, so that
 * munmap can tell them from what was missed. */
BPF_TABLE("hash", struct block_key, struct block, blocks, BLOCKS_MAX);
/* Where live mappings end, so that munmap can cut their tails. key: (end address, process),
 * value: start address. */
BPF_TABLE("hash", struct block_key, u64, mapping_ends, MAPPINGS_MAX);
/* Frames, written once, before the stack's counters. key: stack id. */
BPF_TABLE("hash", u64, struct stack, stacks, STACKS_MAX);
/* Counters. key: stack id. One more than stacks: STACK_ID_UNFILED has no frames. */
BPF_TABLE("hash", u64, struct stack_stats, stack_stats, STACKS_MAX + 1);

static __always_inline void lose(u32 loss)
{
	u64 *count = losses.lookup(&loss);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline struct block_key key_of(u64 address)
{
	struct block_key key = { .address = address, .pid = bpf_get_current_pid_tgid() >> 32 };

	return key;
}

static __always_inline u64 whole_pages(u64 length)
{
	return (length + PAGE_LOW_BITS) & ~PAGE_LOW_BITS;
}

/* ---- stacks and their counters ---- */

#include "unwind.bpf.h"

/* The counters of thread->stack, whose id is *id, made where the stack is new. A stack that finds
 * no room counts under STACK_ID_UNFILED, which *id then is. */
static __always_inline struct stack_stats *stats_of(struct thread *thread, u64 *id)
{
	struct stack_stats fresh = {}, *stats;

	stats = stack_stats.lookup(id);
	if (stats)
		return stats;
	/* insert: of two threads that meet here the second leaves the first one's in place */
	stacks.insert(id, &thread->stack);
	if (stacks.lookup(id)) {
		stack_stats.insert(id, &fresh);
		stats = stack_stats.lookup(id);
	}
	if (!stats) {
		lose(LOST_STACKS_FULL);
		*id = STACK_ID_UNFILED;
		stats = stack_stats.lookup(id);
	}
	return stats;
}

static __always_inline void count_alloc(struct stack_stats *stats, const struct block *block)
{
	if (stats->allocs == stats->frees) {
		stats->oldest_ns = block->birth_ns;
		stats->oldest_freed = 0;
	} else if (block->birth_ns < stats->oldest_ns) {	/* overtaken on another processor */
		stats->oldest_ns = block->birth_ns;
	}
	__sync_fetch_and_add(&stats->bytes, block->size * block->weight);
	__sync_fetch_and_add(&stats->allocs, block->weight);
}

/* Take `bytes` of a block out of its stack's counters, and the block itself where it `ended`. */
static __always_inline void count_free(const struct block *block, u64 bytes, int ended)
{
	u64 id = block->stack_id;
	struct stack_stats *stats = stack_stats.lookup(&id);

	if (!stats)
		return;
	if (ended) {
		if (block->birth_ns <= stats->oldest_ns)
			stats->oldest_freed = 1;
		__sync_fetch_and_add(&stats->frees, block->weight);
	}
	__sync_fetch_and_add(&stats->bytes, -(bytes * block->weight));
}

#include "blocks.bpf.h"

#include "call.bpf.h"

/* ---- programs ---- */

int on_enter(struct pt_regs *ctx)	/* the entry of any function but free */
{
	u32 zero = 0;
	u64 entry = bpf_get_attach_cookie(ctx), size = PT_REGS_PARM1(ctx), sp = PT_REGS_SP(ctx);
	struct range moved = {}, ended = {};
	struct config *settings = config.lookup(&zero);
	struct call *call = 0;
	u32 kind = CALL_MALLOC;

	if (!settings || settings->phase == PHASE_OFF)
		return 0;
	switch (entry) {
	case ENTRY_MEMALIGN:
		size = PT_REGS_PARM2(ctx);
		break;
	case ENTRY_CALLOC:
		size = product(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
		break;
	case ENTRY_REALLOC:
		size = PT_REGS_PARM2(ctx);
		kind = CALL_REALLOC;
		break;
	case ENTRY_REALLOCARRAY:
		size = product(PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
		kind = CALL_REALLOC;
		break;
	case ENTRY_POSIX_MEMALIGN:
		size = PT_REGS_PARM3(ctx);
		kind = CALL_POSIX_MEMALIGN;
		break;
	case ENTRY_MMAP:
		size = whole_pages(PT_REGS_PARM2(ctx));
		kind = CALL_MMAP;
		if (!(PT_REGS_PARM4(ctx) & MAP_FIXED))
			break;
		/* an allocator gives pages back by mapping fresh ones over its own */
		if (called_by_allocator(settings, sp))
			return 0;
		ended.address = PT_REGS_PARM1(ctx);
		ended.length = size;
		break;
	case ENTRY_MREMAP:
		size = whole_pages(PT_REGS_PARM3(ctx));
		kind = CALL_MREMAP;
		/* length 0 makes a second mapping of shared memory */
		if (PT_REGS_PARM4(ctx) & MREMAP_DONTUNMAP)
			break;
		moved.address = PT_REGS_PARM1(ctx);
		moved.length = whole_pages(PT_REGS_PARM2(ctx));
		if (PT_REGS_PARM4(ctx) & MREMAP_FIXED) {
			ended.address = PT_REGS_PARM5(ctx);
			ended.length = size;
		}
		break;
	case ENTRY_MUNMAP:
		if (PT_REGS_PARM1(ctx) & PAGE_LOW_BITS)
			return 0;
		ended.address = PT_REGS_PARM1(ctx);
		ended.length = whole_pages(PT_REGS_PARM2(ctx));
	}
	if (entry != ENTRY_MUNMAP) {
		call = enter(settings, sp, PT_REGS_IP(ctx), kind, size);
		if (!call)
			return 0;
		call->exits_at_ret = entry == ENTRY_NEW;
		call->function = PT_REGS_IP(ctx);
		call->caller = 0;
		if (call->exits_at_ret)
			read_user(&call->caller, sizeof(call->caller), (void *)sp);
		call->result = PT_REGS_PARM1(ctx);
		if (kind == CALL_REALLOC)
			take_block(call, PT_REGS_PARM1(ctx));
	}
	/* before that no mapping is held: none could match, and each would be counted as lost */
	if (settings->phase == PHASE_COUNT && (moved.length || ended.length))
		cut_mappings(settings, sp, call, moved, ended);
	return 0;
}

int on_return(struct pt_regs *ctx)	/* the return of any function that returns a block */
{
	u32 zero = 0;
	u64 id = bpf_get_current_pid_tgid(), address;
	u64 pc = PT_REGS_IP(ctx), sp = PT_REGS_SP(ctx);
	struct config *settings = config.lookup(&zero);
	struct thread *thread = threads.lookup(&id);
	struct stack_stats *stats = 0;
	struct block block = {};
	struct call *call;
	int counted = 0;	/* 1: `block` is in its stack's counters already */

	if (!settings)
		return 0;
	if (!thread) {	/* every entry leaves one, so it was evicted */
		if (settings->phase == PHASE_COUNT)
			lose(LOST_THREADS_FULL);
		return 0;
	}
	call = &thread->call;
	/* another sp is that of a call inside, or of a ret that another call jumped to */
	if (!call->sp || sp != call->sp + (call->exits_at_ret ? 0 : sizeof(u64)))
		return 0;
	call->sp = 0;
	if (call->exits_at_ret) {	/* about to take the return address off */
		read_user(&pc, sizeof(pc), (void *)sp);
		sp += sizeof(u64);
	}
	address = result_of(call, PT_REGS_RC(ctx));
	/* realloc(p, 0) frees and returns NULL; any other NULL leaves the block as it was */
	if (call->old_held && !address && !(call->kind == CALL_REALLOC && !call->size)) {
		address = restore(call, &block);
		counted = 1;
	} else {
		if (call->old_held)
			count_free(&call->old, call->old.size, !call->rest);
		if (!address || (!call->weight && call->kind < CALL_MMAP))
			return 0;
		/* a function that returns has given back all registers that it had to save */
		thread->registers[0] = PT_REGS_FP(ctx);	/* arch.py: Registers.saved */
		thread->registers[1] = ctx->bx;
		thread->registers[2] = ctx->r12;
		thread->registers[3] = ctx->r13;
		thread->registers[4] = ctx->r14;
		thread->registers[5] = ctx->r15;
		stats = new_block(thread, pc, sp, &block, settings->phase == PHASE_COUNT);
		if (settings->phase != PHASE_COUNT)
			return 0;
		if (stats && thread->stack.truncated == TRUNCATED)
			lose(LOST_TRUNCATED);
	}
	if (!hold(address, &block)) {
		if (counted)
			count_free(&block, block.size, 1);
	} else if (stats) {
		count_alloc(stats, &block);
	}
	return 0;
}

int on_free(struct pt_regs *ctx)	/* free (block) */
{
	struct block_key key = key_of(PT_REGS_PARM1(ctx));
	struct block *held = blocks.lookup(&key), block;

	if (!held || held->mapping)
		return 0;
	block = *held;	/* the entry may be another block's once it is deleted */
	if (!blocks.delete(&key))
		count_free(&block, block.size, 1);
	return 0;
}
