/* The kernel half of growth mode: which code paths make a process take new pages. In bcc's dialect
 * as memleak.bpf.c, with whose parts it walks; ARCHITECTURE.md says how it counts.
 *
 * A page fault opens a window on its thread. The first page for user space that the kernel allocates
 * within it is what the fault brought, unless it goes to the page cache: then it holds a file. */
#include <uapi/linux/ptrace.h>
#include "memleak.h"
#include "growth.h"

/* What a page for user space is allocated with, and memory of the kernel's own is not: __GFP_HIGHMEM
 * and __GFP_MOVABLE (GFP_HIGHUSER_MOVABLE, include/linux/gfp_types.h). */
#define GFP_USER_PAGE 0xa
/* Orders of pages are less (MAX_PAGE_ORDER); a mask for the verifier. */
#define ORDER_MASK 31

/* Live settings. key: 0. */
BPF_ARRAY(growth_config, struct growth_config, 1);

#include "base.bpf.h"

/* bpf_probe_read_kernel under another name, as read_user is. */
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)BPF_FUNC_probe_read_kernel;

/* Through which door a thread that takes a page came into the kernel. */
enum window {
	WINDOW_NONE = 0,	/* no page that is allocated now is looked at */
	WINDOW_FAULT,		/* a page fault of user space */
	WINDOW_COPY,		/* a page fault of the kernel's, as it copies to or from user space */
	WINDOW_CALL,		/* brk, mmap or mremap, which may bring pages at once (MAP_POPULATE) */
};

/* What a thread is seen at. */
struct call {
	u32 window;		/* enum window */
	u32 weight;		/* faults that it stands for */
	u64 ip, sp;		/* of user space; valid in WINDOW_COPY and WINDOW_CALL */
	u32 walking;		/* 1: a stack is read, which may fault by itself */
	u32 pages;		/* allocated, and not counted yet; 0: a system call is to be counted */
	u64 page;		/* the struct page allocated last, while it may turn out to be a file's */
	u32 counted;		/* pages that were counted for it */
	u32 stack;		/* the number of the stack that they were counted under */
};

#include "thread.bpf.h"

#include "stacks.bpf.h"

#include "unwind.bpf.h"

#include "shapes.bpf.h"

/* Calls of brk, mmap and mremap, as memory for user space. key: number of the stack. */
BPF_F_TABLE("array", u32, u64, stack_calls, STACKS_MAX + 1, BPF_F_MMAPABLE);
/* The program that a walk goes on in: on_walk. key: 0. */
BPF_PROG_ARRAY(walkers, 1);

/* The settings, where the thread that runs is the target's and is to be looked at. */
static __always_inline struct growth_config *settings_of_target(void)
{
	u32 zero = 0;
	struct growth_config *settings = growth_config.lookup(&zero);

	if (!settings || bpf_get_current_pid_tgid() >> 32 != settings->pid ||
	    settings->phase == PHASE_OFF)
		return 0;
	return settings;
}

/* The registers of user space when the thread entered the kernel (bpf_task_pt_regs, kernel commit
 * dd6e10fbd9fb). 0: done. */
static __always_inline long user_registers(struct pt_regs *registers)
{
	return read_kernel(registers, sizeof(*registers),
			   (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf()));
}

/* What one event counts: 0 where sampling leaves it out. */
static __always_inline u32 sampled(const struct growth_config *settings)
{
	u64 rate = settings->sample_rate;

	return rate > 1 && bpf_get_prandom_u32() * rate >> 32 ? 0 : rate;
}

/* Open a window on this thread, whose state it returns; NULL where there is nothing to look at. */
static __always_inline struct thread *open_window(const struct growth_config *settings, u32 window)
{
	struct thread *thread = this_thread(1);

	if (!thread) {
		lose(LOST_THREADS_FULL);
		return 0;
	}
	if (thread->call.walking)
		return 0;
	thread->slot = GROWTH_SLOT;
	thread->call.weight = sampled(settings);
	thread->call.window = thread->call.weight ? window : WINDOW_NONE;
	return thread;
}

/* Count what was seen under the number of its stack. */
static __always_inline void account(struct thread *thread, const struct growth_config *settings,
				    u32 stack)
{
	struct call *call = &thread->call;
	struct stack_stats *stats;
	u64 *calls;

	call->walking = 0;
	if (settings->phase != PHASE_COUNT)
		return;
	if (!call->pages) {
		calls = stack_calls.lookup(&stack);
		if (calls)
			__sync_fetch_and_add(calls, call->weight);
		return;
	}
	call->stack = stack;
	call->counted = call->pages;
	stats = stack_stats.lookup(&stack);
	if (!stats)
		return;
	__sync_fetch_and_add(&stats->bytes, call->pages * PAGE_SIZE * call->weight);
	__sync_fetch_and_add(&stats->allocs, call->weight);
}

/* Begin to account under the stack that user space is at: done at once where it is known, else a walk
 * begins, and the caller has to go on in it. Returns whether it is done. */
static __always_inline int begin_account(struct thread *thread,
					 const struct growth_config *settings,
					 const struct pt_regs *registers)
{
	u32 stack, truncated = WHOLE;
	/* An instruction that faulted is where a thread is, not where it will come back to: rules are
	 * looked up, as names are, for the byte before an address. */
	u64 pc = registers->ip + !IN_SYSTEM_CALL(registers);

	thread->call.walking = 1;
	take_registers(thread, registers);
	stack = known_stack(thread, pc, registers->sp, &truncated);
	if (stack == STACK_UNFILED) {
		begin_stack(thread, pc, registers->sp);
		return 0;
	}
	if (truncated == TRUNCATED)
		lose(LOST_TRUNCATED);
	account(thread, settings, stack);
	return 1;
}

/* A walk that cannot go on: counted all the same, under no stack. */
static __always_inline void account_unfiled(struct thread *thread,
					    const struct growth_config *settings)
{
	lose(LOST_STACKS_FULL);
	account(thread, settings, STACK_UNFILED);
}

/* ---- programs ---- */

int on_fault(u64 *arguments)	/* exceptions:page_fault_user (address, registers, error code) */
{
	struct growth_config *settings = settings_of_target();

	if (settings)
		open_window(settings, WINDOW_FAULT);
	return 0;
}

int on_copy(u64 *arguments)	/* exceptions:page_fault_kernel (address, registers, error code) */
{
	struct growth_config *settings = settings_of_target();
	struct pt_regs registers;
	struct thread *thread;

	if (!settings)
		return 0;
	thread = open_window(settings, WINDOW_COPY);
	if (!thread || user_registers(&registers))
		return 0;
	thread->call.ip = registers.ip;
	thread->call.sp = registers.sp;
	return 0;
}

int on_page(u64 *arguments)	/* kmem:mm_page_alloc (page, order, flags, migration type) */
{
	struct growth_config *settings;
	struct pt_regs registers;
	struct thread *thread;
	struct call *call;

	if ((arguments[2] & GFP_USER_PAGE) != GFP_USER_PAGE)
		return 0;
	settings = settings_of_target();
	if (!settings)
		return 0;
	thread = this_thread(0);
	if (!thread || thread->call.walking)
		return 0;
	call = &thread->call;
	if (call->page == arguments[0])	/* was given back since: what becomes of it is another story */
		call->counted = 0;
	if (call->window == WINDOW_NONE || user_registers(&registers))
		return 0;
	/* the window is over where the thread has left the kernel since */
	if (call->window == WINDOW_FAULT ? IN_SYSTEM_CALL(&registers)
					 : call->ip != registers.ip || call->sp != registers.sp) {
		call->window = WINDOW_NONE;
		return 0;
	}
	if (call->window != WINDOW_CALL)	/* a fault brings one, of whichever order */
		call->window = WINDOW_NONE;
	call->page = arguments[0];
	call->counted = 0;
	call->pages = 1U << (arguments[1] & ORDER_MASK);
	if (begin_account(thread, settings, &registers))
		return 0;
	walkers.call(arguments, 0);	/* does not come back */
	account_unfiled(thread, settings);
	return 0;
}

int on_file_page(u64 *arguments)	/* filemap:mm_filemap_add_to_page_cache (page) */
{
	struct growth_config *settings = settings_of_target();
	struct stack_stats *stats;
	struct thread *thread;
	struct call *call;
	u32 stack;

	if (!settings)
		return 0;
	thread = this_thread(0);
	if (!thread || thread->call.page != arguments[0] || !thread->call.counted)
		return 0;
	call = &thread->call;
	stack = call->stack;
	stats = stack_stats.lookup(&stack);
	if (stats) {
		__sync_fetch_and_add(&stats->bytes, -(call->counted * PAGE_SIZE * call->weight));
		__sync_fetch_and_add(&stats->allocs, -(u64)call->weight);
	}
	call->counted = 0;
	return 0;
}

int on_locking(u64 *arguments)	/* mmap_lock:mmap_lock_start_locking (memory, whether to write) */
{
	struct growth_config *settings;
	struct pt_regs registers;
	struct thread *thread;

	if (!(u8)arguments[1])
		return 0;
	settings = settings_of_target();
	if (!settings || user_registers(&registers) || !IN_MAPPING_CALL(&registers))
		return 0;
	thread = open_window(settings, WINDOW_CALL);
	if (!thread || thread->call.window == WINDOW_NONE)
		return 0;
	thread->call.ip = registers.ip;
	thread->call.sp = registers.sp;
	thread->call.pages = 0;
	if (begin_account(thread, settings, &registers))
		return 0;
	walkers.call(arguments, 0);	/* does not come back */
	account_unfiled(thread, settings);
	return 0;
}

/* A round of the walk that began at a page or at a call. The last one accounts for it. */
int on_walk(u64 *arguments)
{
	struct growth_config *settings = settings_of_target();
	struct thread *thread = this_thread(0);
	enum round came_to;
	u32 stack;

	if (!settings)
		return 0;
	if (!thread) {	/* evicted between two rounds */
		lose(LOST_THREADS_FULL);
		return 0;
	}
	came_to = walk_round(thread);
	if (came_to == ROUND_MORE)
		walkers.call(arguments, 0);	/* does not come back */
	end_stack(thread, came_to);
	if (settings->phase != PHASE_COUNT) {	/* only so that its rules are there by then */
		thread->call.walking = 0;
		return 0;
	}
	stack = number_of(&thread->stack);
	if (stack == STACK_UNFILED)
		lose(LOST_STACKS_FULL);
	else
		keep_shape(thread, stack);
	if (thread->stack.truncated == TRUNCATED)
		lose(LOST_TRUNCATED);
	account(thread, settings, stack);
	return 0;
}
