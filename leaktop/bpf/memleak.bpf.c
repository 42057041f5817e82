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

/* What a program returns at a function's entry to say that its end need not be seen: only sessions
 * ask; to others it would mean to take the probe off. */
#ifdef SESSION
#define SKIP_END 1
#else
#define SKIP_END 0
#endif

/* bpf_probe_read_user under another name: bcc reads all of /proc/kallsyms for each call by that one
 * (src/cc/frontends/clang/b_frontend_action.cc), to see whether the kernel has it; 5.5 and later do
 * (kernel commit 6ae08ae3dea2). That is 0.1 s a call at start-up. */
static long (*read_user)(void *to, u32 size, const void *from) = (void *)BPF_FUNC_probe_read_user;

/* Live settings. key: 0, value: struct config. */
BPF_ARRAY(config, struct config, 1);
/* Losses by name. key: enum loss, value: how often. */
BPF_ARRAY(losses, u64, LOSS_COUNT);

static __always_inline void lose(u32 loss)
{
	u64 *count = losses.lookup(&loss);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline struct place place_of(u64 address)
{
	struct place place = { .address = address, .pid = bpf_get_current_pid_tgid() >> 32 };

	return place;
}

static __always_inline u64 whole_pages(u64 length)
{
	return (length + PAGE_LOW_BITS) & ~PAGE_LOW_BITS;
}

#include "thread.bpf.h"

#include "unwind.bpf.h"

#include "stacks.bpf.h"

#include "blocks.bpf.h"

#include "mappings.bpf.h"

#include "call.bpf.h"

/* ---- programs ---- */

/* The entry of any function but free. Returns whether to see its return. */
static __always_inline int enter(struct pt_regs *ctx, const struct config *settings, u64 entry)
{
	u64 size = PT_REGS_PARM1(ctx), sp = PT_REGS_SP(ctx);
	struct range moved = {}, ended = {};
	struct call *call = 0;
	u32 kind = CALL_MALLOC;
	int wanted = 0;

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
		call = open_call(ctx, settings, kind, size);
		if (!call)
			return 0;
		if (kind == CALL_REALLOC)
			take_old(call, PT_REGS_PARM1(ctx));
		call->result = PT_REGS_PARM1(ctx);
		wanted = wants_end(call, entry);
		if (call->end != END_BY_TRAP)
			read_user(&call->caller, sizeof(call->caller), (void *)sp);
	}
	/* before that no mapping is held: none could match, and each would be counted as lost */
	if (settings->phase == PHASE_COUNT && (moved.length || ended.length))
		cut_mappings(settings, sp, call, moved, ended);
	return wanted;
}

/* The number of the stack of the caller, who goes on at `pc` with `sp`. */
static __always_inline u32 stack_of(struct thread *thread, const struct config *settings,
				    struct pt_regs *ctx, u64 pc, u64 sp)
{
	u32 stack, truncated = WHOLE;

	/* a function that returns has given back all registers that it had to save */
	take_registers(thread, ctx);
	stack = known_stack(thread, pc, sp, &truncated);
	if (stack == STACK_UNFILED) {
		take_stack(thread, pc, sp);
		if (settings->phase != PHASE_COUNT)	/* only so that its rules are there by then */
			return STACK_UNFILED;
		truncated = thread->stack.truncated;
		stack = number_of(thread);
		if (stack == STACK_UNFILED)
			lose(LOST_STACKS_FULL);
		else
			keep_shape(thread, pc, sp, stack);
	}
	if (truncated == TRUNCATED)
		lose(LOST_TRUNCATED);
	return stack;
}

/* The end of any function that returns a block. */
static __always_inline void leave(struct pt_regs *ctx, const struct config *settings)
{
	u64 pc = PT_REGS_IP(ctx), sp = PT_REGS_SP(ctx), address;
	struct thread *thread = this_thread(0);
	struct block block = {};
	struct call *call;
	int counted = 0, held;	/* counted: `block` is in its stack's counters already */

	if (!thread) {
#ifndef TASK_STORAGE	/* every entry leaves one, so it was evicted */
		if (settings->phase == PHASE_COUNT)
			lose(LOST_THREADS_FULL);
#endif
		return;
	}
	call = &thread->call;
	/* another sp is that of a call inside, or of a ret that another call jumped to */
	if (!call->sp || sp != call->sp + (call->end == END_AT_RET ? 0 : sizeof(u64)))
		return;
	call->sp = 0;
	if (call->end == END_AT_RET) {	/* about to take the return address off */
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
			return;
		block.size = call->size;
		block.weight = call->weight;
		if (call->weight)
			block.stack = stack_of(thread, settings, ctx, pc, sp);
		if (settings->phase != PHASE_COUNT)
			return;
		block.birth_ns = bpf_ktime_get_ns();
	}
	held = call->kind < CALL_MMAP ? hold_block(address, &block) : hold_mapping(address, &block);
	if (!held && counted)
		count_free(&block, block.size, 1);
	if (held && !counted && call->weight)
		count_alloc(&block);
}

/* The entry of a function, or its end: which one, its cookie says, but for a session's program,
 * which has one cookie for both (kernel commit d920179b3d48). */
int on_call(struct pt_regs *ctx)
{
	u32 zero = 0;
	u64 cookie = bpf_get_attach_cookie(ctx);
	struct config *settings = config.lookup(&zero);

	if (!settings || settings->phase == PHASE_OFF)
		return SKIP_END;
#ifdef SESSION
	if (PT_REGS_IP(ctx) != bpf_get_func_ip(ctx))
		cookie = COOKIE_EXIT;
#endif
	if (cookie == COOKIE_EXIT) {
		leave(ctx, settings);
		return SKIP_END;
	}
	return enter(ctx, settings, cookie) ? 0 : SKIP_END;
}

int on_free(struct pt_regs *ctx)	/* free (block) */
{
	struct block block;

	if (take_block(PT_REGS_PARM1(ctx), &block))
		count_free(&block, block.size, 1);
	return 0;
}
