/* What is known of a thread while it is being looked at. Part of memleak.bpf.c and of growth.bpf.c,
 * which say before what `struct call` is. */

/* What a stack can be read from: the registers that a callee saves, in a rule's order, then the
 * stack from the stack pointer on. One array, so that a word of either has one number. */
#define VIEW_STACK_BYTES 8192
#define VIEW_WORDS (SAVED_REGISTERS + VIEW_STACK_BYTES / 8)

/* Most words that a shape has; a walk that needs more is done each time. */
#define SHAPE_WORDS_MAX 96

/* Where in a view the words lie that decide how a stack goes on. Whoever finds the same words
 * there, begins at the same pc and sp and has the same rules, has the same stack. */
struct shape {
	u64 pc, sp;		/* where the walk began */
	u64 check;		/* of the words, and of the fields below */
	u32 slot;		/* of the process */
	u32 epoch;		/* value of `epoch` then */
	u32 stack;		/* number of the stack */
	u32 truncated;		/* enum truncation */
	u64 end;		/* the highest of the words, plus 1 */
	u64 count;		/* words */
	u16 words[SHAPE_WORDS_MAX];	/* their numbers */
};

/* Where a walk is: the registers of the frame that it stands in. */
struct walk {
	u64 pc, sp;
	u64 id;			/* the mix of the return addresses met */
};

/* One thread's state. What takes a stack lies here and not in per-CPU memory, since uprobe programs
 * can be preempted by another thread's (bpf_prog_run_array_uprobe, kernel commit 8c7dcb84e3b7,
 * disables migration only). */
struct thread {
	struct call call;
	u64 slot;		/* of its process */
	struct stack stack;	/* the stack of the call that is returning */
	struct shape shape;	/* the shape of that stack */
	struct walk walk;	/* the walk that finds it, between two rounds */
	/* Where on the stack each saved register was met last; 0: it is still in the register, 1: it
	 * cannot be followed. In map memory, of which the verifier tracks no contents: fewer states. */
	u64 saved_at[SAVED_REGISTERS];
	u64 word;		/* what was read last */
	u64 view_start;		/* the stack pointer that the view begins at */
	u64 view_bytes;		/* how much of the stack is in the view */
	u64 view[VIEW_WORDS];
};

#ifdef TASK_STORAGE
/* Threads that have called an allocator. key: the task, value: its state, which goes with it. Taken
 * when it is needed: memory for the threads there are. Programs on uprobes may use it since kernel
 * commit a10787e6d58c. */
BPF_TASK_STORAGE(threads, struct thread);

static __always_inline struct thread *this_thread(int make)
{
	return threads.task_storage_get((void *)bpf_get_current_task_btf(), 0, make);
}
#else
/* Calls under way. key: pid_tgid, value: that thread's state. LRU: a thread needs its entry only
 * while a call runs, so the entries of threads that ended are the ones reused. */
BPF_TABLE("lru_hash", u64, struct thread, threads, THREADS_MAX);
/* A thread's first state, all zero: too large for the program's stack. key: 0. */
BPF_ARRAY(blank_thread, struct thread, 1);

static __always_inline struct thread *this_thread(int make)
{
	u32 zero = 0;
	u64 id = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&id), *blank;

	if (thread || !make)
		return thread;
	blank = blank_thread.lookup(&zero);
	if (!blank)
		return 0;
	threads.update(&id, blank);
	return threads.lookup(&id);
}
#endif
