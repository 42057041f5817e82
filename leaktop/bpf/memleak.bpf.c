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

/* How many mappings one munmap may end, a tail call each, of which the kernel allows 33; what is left
 * after as many is counted as unmatched. */
#define UNMAP_PIECES_MAX 32

/* What a program returns at a function's entry to say that its end need not be seen: only sessions
 * ask; to others it would mean to take the probe off. */
#ifdef SESSION
#define SKIP_END 1
#else
#define SKIP_END 0
#endif

#include "base.bpf.h"

#include "settings.bpf.h"

static __always_inline u64 whole_pages(u64 length)
{
	return (length + PAGE_LOW_BITS) & ~PAGE_LOW_BITS;
}

#include "call_state.bpf.h"

#include "thread.bpf.h"

#include "stacks.bpf.h"

#include "counting.bpf.h"

#include "unwind.bpf.h"

#include "shapes.bpf.h"

#include "blocks.bpf.h"

#include "mappings.bpf.h"

#include "call.bpf.h"

/* ---- programs ---- */

/* What programs that see a function's end go on in. key: 0: a walk in on_walk, 1: mmap and mremap, to
 * end what they replace, in on_replaced. */
BPF_PROG_ARRAY(walkers, 2);
/* What munmap goes on in: on_unmapped. key: 0. */
BPF_PROG_ARRAY(unmappers, 1);

/* Put what a call gave out on the books, under its caller's stack. */
static __always_inline void put_on_books(const struct thread *thread,
					 const struct config *settings, u32 stack)
{
	const struct call *call = &thread->call;
	struct block block = { .size = call->size, .stack = stack, .weight = call->weight };
	u64 key = key_of(thread->slot, call->address);
	int held;

	if (settings->phase != PHASE_COUNT)
		return;
	block.birth_ns = bpf_ktime_get_ns();
	block.thread = bpf_get_current_pid_tgid();
	held = call->kind < CALL_MMAP ? hold_block(key, &block)
				      : hold_mapping(thread->slot, call->address, &block);
	if (held && call->weight)
		count_alloc(key, &block);
}

/* Put the block that a failed realloc or mremap took out back on the books: it is counted still. */
static __always_inline void put_back(struct thread *thread)
{
	struct block block;
	u64 address = restore(thread, &block);
	int held = thread->call.kind < CALL_MMAP
			   ? hold_block(key_of(thread->slot, address), &block)
			   : hold_mapping(thread->slot, address, &block);

	if (!held)
		count_free(key_of(thread->slot, address), &block, block.size, 1);
}

/* The end of any function that returns a block or a mapping. */
static __always_inline void leave(struct pt_regs *ctx, const struct config *settings)
{
	u64 pc = PT_REGS_IP(ctx), sp = PT_REGS_SP(ctx);
	struct thread *thread = this_thread(0);
	u32 stack = STACK_UNFILED, truncated = WHOLE;
	struct call *call;

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
		pc = return_address_at(settings, sp);
		sp += sizeof(u64);
	}
	call->address = result_of(call, PT_REGS_RC(ctx));
	/* realloc(p, 0) frees and returns NULL; any other NULL leaves the block as it was */
	if (call->old_held && !call->address && !(call->kind == CALL_REALLOC && !call->size)) {
		put_back(thread);
		return;
	}
	if (call->old_held)
		count_free(key_of(thread->slot, call->old_address), &call->old, call->old.size,
			   !call->rest);
	if (!call->address || (!call->weight && call->kind < CALL_MMAP))
		return;
	if (call->weight) {
		/* a function that returns has given back all registers that it had to save */
		take_registers(thread, ctx);
		stack = known_stack(thread, pc, sp, &truncated);
		if (stack == STACK_UNFILED) {
			begin_stack(thread, pc, sp);
			walkers.call(ctx, 0);	/* does not come back */
			lose(LOST_STACKS_FULL);
		}
		if (truncated == TRUNCATED)
			lose(LOST_TRUNCATED);
	}
	put_on_books(thread, settings, stack);
}

/* The entry of a function that allocates blocks. Returns whether to see its return. */
static __always_inline int enter_block(struct pt_regs *ctx, const struct config *settings,
				       struct thread *thread, u64 cookie)
{
	struct call *call = &thread->call;
	u64 entry = cookie & (COOKIE_EXIT - 1), size = PT_REGS_PARM1(ctx);
	u32 kind = CALL_MALLOC;

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
	}
	open_call(call, ctx, settings, cookie, kind, size);
	if (kind == CALL_REALLOC)
		take_old(thread, PT_REGS_PARM1(ctx));
	call->result = PT_REGS_PARM1(ctx);
	if (entry == ENTRY_NEW)
		call->end = END_AT_RET;
#ifdef SESSION
	else if (call->end == END_BY_TRAP && !call->weight && !call->old_held)
		call->end = END_UNSEEN;
#endif
	note_caller(call);
	return call->end == END_BY_TRAP;
}

/* The entry of mmap or mremap. Returns whether to see its return. */
static __always_inline int enter_mapping(struct pt_regs *ctx, const struct config *settings,
					 struct thread *thread, u64 cookie)
{
	u64 sp = sp_at_entry(ctx, cookie), address = PT_REGS_PARM1(ctx), flags = PT_REGS_PARM4(ctx);
	struct call *call = &thread->call;
	/* before that no mapping is held: none could match, and each would be counted as lost */
	int counting = settings->phase == PHASE_COUNT;

	if ((cookie & (COOKIE_EXIT - 1)) == ENTRY_MREMAP) {
		open_call(call, ctx, settings, cookie, CALL_MREMAP,
			  whole_pages(PT_REGS_PARM3(ctx)));
		note_caller(call);
		if (flags & MREMAP_DONTUNMAP)
			return call->end == END_BY_TRAP;
		/* length 0 makes a second mapping of shared memory */
		if (counting && PT_REGS_PARM2(ctx))
			take_moved(settings, thread, address, whole_pages(PT_REGS_PARM2(ctx)));
		if (!(flags & MREMAP_FIXED))
			return call->end == END_BY_TRAP;
		address = PT_REGS_PARM5(ctx);
	} else {
		/* an allocator gives pages back by mapping fresh ones over its own */
		if (flags & MAP_FIXED && called_by_allocator(settings, sp))
			return 0;
		open_call(call, ctx, settings, cookie, CALL_MMAP, whole_pages(PT_REGS_PARM2(ctx)));
		note_caller(call);
		if (!(flags & MAP_FIXED))
			return call->end == END_BY_TRAP;
	}
	if (counting) {
		begin_ending(thread, sp, address, call->size);
		call->ending.skip_end = call->end != END_BY_TRAP;
		walkers.call(ctx, 1);	/* does not come back */
		lose(LOST_UNMATCHED_UNMAPS);
	}
	return call->end == END_BY_TRAP;
}

/* Whether a program runs at the end of a function. A session's has one cookie for entry and end
 * (kernel commit d920179b3d48). */
static __always_inline int is_exit(struct pt_regs *ctx, u64 cookie)
{
#ifdef SESSION
	if (PT_REGS_IP(ctx) != bpf_get_func_ip(ctx))
		return 1;
#endif
	return (cookie & COOKIE_EXIT) != 0;
}

/* This thread's state, NULL where there is no room for it. */
static __always_inline struct thread *thread_in(u32 slot)
{
	struct thread *thread = this_thread(1);

	if (!thread) {
		lose(LOST_THREADS_FULL);
		return 0;
	}
	if (thread->slot != slot) {	/* a call may be open in the program that an exec ended */
		thread->slot = slot;
		thread->call.sp = 0;
	}
	return thread;
}

/* This thread's state for a call that begins now, NULL where an open call contains it. */
static __always_inline struct thread *entering(struct pt_regs *ctx, const struct config *settings,
					       u64 cookie)
{
	struct thread *thread = thread_in(cookie >> COOKIE_SLOT_SHIFT);

	if (!thread)
		return 0;
	return is_outermost(thread, settings, ctx, sp_at_entry(ctx, cookie)) ? thread : 0;
}

/* A function that allocates blocks: its entry, or its end. */
int on_call(struct pt_regs *ctx)
{
	u64 cookie = bpf_get_attach_cookie(ctx);
	u32 slot = cookie >> COOKIE_SLOT_SHIFT;
	struct config *settings = config.lookup(&slot);
	struct thread *thread;

	if (!settings || settings->phase == PHASE_OFF)
		return SKIP_END;
	if (is_exit(ctx, cookie)) {
		leave(ctx, settings);
		return SKIP_END;
	}
	thread = entering(ctx, settings, cookie);
	return thread && enter_block(ctx, settings, thread, cookie) ? 0 : SKIP_END;
}

/* mmap or mremap: its entry, or its end. */
int on_mapping(struct pt_regs *ctx)
{
	u64 cookie = bpf_get_attach_cookie(ctx);
	u32 slot = cookie >> COOKIE_SLOT_SHIFT;
	struct config *settings = config.lookup(&slot);
	struct thread *thread;

	if (!settings || settings->phase == PHASE_OFF)
		return SKIP_END;
	if (is_exit(ctx, cookie)) {
		leave(ctx, settings);
		return SKIP_END;
	}
	thread = entering(ctx, settings, cookie);
	return thread && enter_mapping(ctx, settings, thread, cookie) ? 0 : SKIP_END;
}

/* A round of the walk that the end of a call began. The last one ends the call. */
int on_walk(struct pt_regs *ctx)
{
	struct thread *thread = this_thread(0);
	struct config *settings;
	enum round came_to;
	u32 slot, stack;

	if (!thread) {	/* evicted between two rounds */
		lose(LOST_THREADS_FULL);
		return 0;
	}
	slot = thread->slot;
	settings = config.lookup(&slot);
	if (!settings)
		return 0;
	came_to = walk_round(thread);
	if (came_to == ROUND_MORE)
		walkers.call(ctx, 0);	/* does not come back */
	end_stack(thread, came_to);
	if (settings->phase != PHASE_COUNT)	/* only so that its rules are there by then */
		return 0;
	stack = number_of(&thread->stack);
	if (stack == STACK_UNFILED)
		lose(LOST_STACKS_FULL);
	else
		keep_shape(thread, stack);
	if (thread->stack.truncated == TRUNCATED)
		lose(LOST_TRUNCATED);
	put_on_books(thread, settings, stack);
	return 0;
}

int on_free(struct pt_regs *ctx)	/* free (block) */
{
	u32 slot = bpf_get_attach_cookie(ctx) >> COOKIE_SLOT_SHIFT;
	u64 key = key_of(slot, PT_REGS_PARM1(ctx));
	struct block block;

	if (take_block(key, &block))
		count_free(key, &block, block.size, 1);
	return 0;
}

int on_unmap(struct pt_regs *ctx)	/* munmap (address, length) */
{
	u64 cookie = bpf_get_attach_cookie(ctx), address = PT_REGS_PARM1(ctx);
	u32 slot = cookie >> COOKIE_SLOT_SHIFT;
	struct config *settings = config.lookup(&slot);
	struct thread *thread;

	if (!settings || settings->phase != PHASE_COUNT || address & PAGE_LOW_BITS)
		return 0;
	thread = thread_in(slot);
	if (!thread)
		return 0;
	begin_ending(thread, sp_at_entry(ctx, cookie), address, whole_pages(PT_REGS_PARM2(ctx)));
	unmappers.call(ctx, 0);	/* does not come back */
	lose(LOST_UNMATCHED_UNMAPS);
	return 0;
}

/* A round of ending what is unmapped or replaced. Returns whether another one can go on. */
static __always_inline int end_round(struct thread *thread)
{
	u32 slot;
	struct config *settings;

	if (!thread) {	/* evicted between two rounds */
		lose(LOST_THREADS_FULL);
		return 0;
	}
	slot = thread->slot;
	settings = config.lookup(&slot);
	return settings && end_piece(settings, thread);
}

/* A round of what on_unmap began. */
int on_unmapped(struct pt_regs *ctx)
{
	if (end_round(this_thread(0)))
		unmappers.call(ctx, 0);	/* does not come back */
	return 0;
}

/* A round of what on_mapping began at an entry. */
int on_replaced(struct pt_regs *ctx)
{
	struct thread *thread = this_thread(0);

	if (end_round(thread))
		walkers.call(ctx, 1);	/* does not come back */
	return thread && thread->call.ending.skip_end ? SKIP_END : 0;
}
