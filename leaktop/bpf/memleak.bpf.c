/* bcc's C dialect, compiled at start by libbcc: not CO-RE, no vmlinux.h, and `map.lookup(&key)`
 * is rewritten into helper calls. The kernel half of leaktop's exact accounting of outstanding
 * memory by call stack; ARCHITECTURE.md follows one malloc through it. */
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

/* ---- blocks ---- */

static __always_inline void note_mapping_end(u64 start, u64 size)
{
	struct block_key end = key_of(start + size);

	if (mapping_ends.update(&end, &start))
		lose(LOST_MAPPING_ENDS_FULL);
}

static __always_inline void forget_mapping_end(u64 start, u64 size)
{
	struct block_key end = key_of(start + size);
	u64 *known = mapping_ends.lookup(&end);

	if (known && *known == start)
		mapping_ends.delete(&end);
}

/* Begin to hold a block; counts nothing, but for one that is replaced. False where there is no
 * room. */
static __always_inline int hold(u64 address, const struct block *block)
{
	struct block_key key = key_of(address);
	struct block *held, before;

	/* insert fails alike where the address is held and where the map is full */
	if (blocks.insert(&key, (struct block *)block)) {
		held = blocks.lookup(&key);
		if (!held) {
			lose(LOST_ALLOCS_FULL);
			return 0;
		}
		before = *held;
		blocks.update(&key, (struct block *)block);
		if (before.mapping)
			forget_mapping_end(address, before.size);
		count_free(&before, before.size, 1);
		lose(LOST_MISSED_FREES);
	}
	if (block->mapping)
		note_mapping_end(address, block->size);
	return 1;
}

/* What one step of unmapping took off. */
struct piece {
	struct block block;	/* the mapping it was of, with the piece's size */
	u64 left;		/* bytes of that mapping that stay held; 0: it ended */
	u32 at_end;		/* 1: taken off the end of the range, else off its start */
};

/* Cut off [address, address + length) what the mapping that begins or ends with it has in it. What
 * is left of that mapping stays held. Returns the piece's size, 0 where there is no such mapping.
 * Counts nothing. */
static __always_inline u64 cut_piece(u64 address, u64 length, struct piece *piece)
{
	struct block_key key = key_of(address), end = key_of(address + length);
	struct block *held = blocks.lookup(&key), rest;
	u64 *start;

	piece->at_end = !held || !held->mapping;
	if (piece->at_end) {
		start = mapping_ends.lookup(&end);
		if (!start)
			return 0;
		key.address = *start;
		held = blocks.lookup(&key);
		if (!held || !held->mapping || key.address + held->size != end.address)
			return 0;
	}
	piece->block = rest = *held;
	if (blocks.delete(&key))
		return 0;	/* another thread was first */
	forget_mapping_end(key.address, rest.size);
	if (rest.size <= length) {
		piece->left = 0;
		return rest.size;
	}
	piece->block.size = length;
	piece->left = rest.size -= length;
	if (!hold(piece->at_end ? key.address : end.address, &rest))
		count_free(&rest, rest.size, 1);
	return length;
}

/* ---- a call, from entry to return ---- */

/* Whether the call that is open contains one entered at `sp`, rather than having been left
 * without a return (longjmp, a thread's end): the stack lies deeper, and the slot of its return
 * address still leads to the uretprobe trampoline, as the kernel arranged, or where it was called
 * from if it has no return probe. Another function that the open one jumps to as its last act has
 * the same sp and the same slot. */
static __always_inline int is_inside(const struct call *call, u64 sp, u64 function, u64 trampoline)
{
	u64 slot = 0, expected = call->exits_at_ret ? call->caller : trampoline;

	if (sp > call->sp)
		return 0;
	if (sp == call->sp && function == call->function)	/* an exception ended the first one */
		return 0;
	if (!expected || read_user(&slot, sizeof(slot), (void *)call->sp))
		return 1;
	return slot == expected;
}

/* What a block of this size counts: 0 where the filters or the sampling leave it out. */
static __always_inline u32 weight_of(u64 size, const struct config *settings)
{
	u64 rate = settings->sample_rate;

	if (size < settings->min_size || size > settings->max_size)
		return 0;
	if (rate > 1 && bpf_get_prandom_u32() * rate >> 32)
		return 0;
	return rate;
}

/* Note the entry of an allocating function; the caller adds what else its kind needs. NULL where
 * an open call contains this one. A call that is left out is noted too: what it does inside must be
 * seen as inside. */
static __always_inline struct call *enter(const struct config *settings, u64 sp, u64 function,
					  u32 kind, u64 size)
{
	u32 zero = 0;
	u64 id = bpf_get_current_pid_tgid();
	struct thread *thread, *blank;
	struct block_key key;
	struct call *call;

	thread = threads.lookup(&id);
	if (!thread) {
		blank = blank_thread.lookup(&zero);
		if (!blank)
			return 0;
		threads.update(&id, blank);
		thread = threads.lookup(&id);
		if (!thread) {
			lose(LOST_THREADS_FULL);
			return 0;
		}
	}
	call = &thread->call;
	if (call->sp) {
		if (is_inside(call, sp, function, settings->trampoline))
			return 0;
		if (!call->exits_at_ret)	/* else an exception ended it: it made nothing */
			lose(LOST_MISSED_RETURNS);
		if (call->old_held) {	/* its fate is not known: held, until its free is seen */
			key = key_of(call->old_address);
			if (blocks.insert(&key, &call->old))
				count_free(&call->old, call->old.size, 1);
		}
	}
	call->sp = sp;
	call->kind = kind;
	call->size = size;
	call->weight = weight_of(size, settings);
	call->old_held = 0;
	call->rest = 0;
	return call;
}

/* realloc: take the old block out now, for once the allocator has freed it another thread may be
 * given its address before this call returns. */
static __always_inline void take_block(struct call *call, u64 address)
{
	struct block_key key = key_of(address);
	struct block *held = blocks.lookup(&key);

	if (!held || held->mapping)
		return;
	call->old = *held;
	if (blocks.delete(&key))
		return;
	call->old_address = address;
	call->old_held = 1;
}

/* Whether the function at whose entry the program runs was called by an allocator's library. */
static __always_inline int called_by_allocator(const struct config *settings, u64 sp)
{
	u64 caller = 0;

	if (read_user(&caller, sizeof(caller), (void *)sp))
		return 0;
	for (int i = 0; i < ALLOCATORS_MAX; i++)	/* bound: the array's size */
		if (caller >= settings->allocators[i].start && caller < settings->allocators[i].end)
			return 1;
	return 0;
}

/* A range of whole pages. */
struct range {
	u64 address, length;
};

/* Take `moved` out of its mapping, of which mremap may leave a head or a tail behind, and end
 * `ended` as munmap does: whole mappings, heads and tails. Either may be empty. One loop serves
 * both, since what it contains is long. What matches no mapping from either side is counted as
 * unmatched, but for what an allocator unmaps: that was never ours. */
static __always_inline void cut_mappings(const struct config *settings, u64 sp, struct call *call,
					 struct range moved, struct range ended)
{
	struct piece piece;
	u64 size;

#pragma clang loop unroll(disable)
	for (int i = 0; i <= UNMAP_PIECES_MAX + 1; i++) {	/* moved; ended; is it all? */
		struct range *range = i ? &ended : &moved;

		if (!range->length) {
			if (i)
				return;
			continue;
		}
		size = cut_piece(range->address, range->length, &piece);
		if (!i && call && size == moved.length) {
			call->old = piece.block;
			call->old_address = moved.address;
			call->old_held = 1;
			call->rest = piece.left;
			call->rest_in_front = piece.at_end;
			continue;
		}
		if (!size || !i)
			break;
		count_free(&piece.block, size, !piece.left);
		ended.length -= size;
		if (!piece.at_end)
			ended.address += size;
	}
	if (!called_by_allocator(settings, sp))
		lose(LOST_UNMATCHED_UNMAPS);
}

/* The address that a call gave out which returned `value`; 0 where it failed. */
static __always_inline u64 result_of(const struct call *call, u64 value)
{
	switch (call->kind) {
	case CALL_POSIX_MEMALIGN:
		if ((u32)value)
			return 0;
		if (read_user(&value, sizeof(value), (void *)call->result)) {
			lose(LOST_UNREAD_RESULTS);
			return 0;
		}
		return value;
	case CALL_MMAP:
	case CALL_MREMAP:
		return value >= -(u64)MAX_ERRNO ? 0 : value;
	}
	return value;
}

/* The block that realloc or mremap took out, as it was: the call failed. Returns its address. */
static __always_inline u64 restore(struct call *call, struct block *block)
{
	struct block_key rest;
	u64 address = call->old_address;

	*block = call->old;
	if (call->rest) {	/* one mapping again */
		rest = key_of(call->rest_in_front ? address - call->rest : address + block->size);
		blocks.delete(&rest);
		forget_mapping_end(rest.address, call->rest);
		if (call->rest_in_front)
			address = rest.address;
		block->size += call->rest;
	}
	return address;
}

/* Describe the new block of a call that succeeded, under the stack of the caller, who goes on at
 * `pc` with `sp`. Returns that stack's counters; NULL where it does not count. */
static __always_inline struct stack_stats *new_block(struct thread *thread, u64 pc, u64 sp,
						     struct block *block)
{
	struct call *call = &thread->call;

	block->size = call->size;
	block->birth_ns = bpf_ktime_get_ns();
	block->stack_id = STACK_ID_UNFILED;
	block->weight = call->weight;
	block->mapping = call->kind >= CALL_MMAP;
	if (!call->weight)
		return 0;
	block->stack_id = take_stack(thread, pc, sp);
	return stats_of(thread, &block->stack_id);
}

/* number * size, or a size that no allocator grants where that does not fit 64 bits */
static __always_inline u64 product(u64 number, u64 size)
{
	u64 most = number ? ~0ULL / number : ~0ULL;

	asm volatile("" : "+r"(most));	/* else clang wants a 128-bit multiplication */
	return size > most ? ~0ULL : number * size;
}

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
		if (PT_REGS_PARM1(ctx) & PAGE_LOW_BITS || settings->phase != PHASE_COUNT)
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
	if (moved.length || ended.length)
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
		stats = new_block(thread, pc, sp, &block);
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
