/* Stacks by number: what they are, what they have done, and which one a call has without walking.
 * Part of memleak.bpf.c. */

/* Frames, written once, before the stack's number is known to anyone. key: number, value: the
 * stack; all zero under STACK_UNFILED. */
BPF_ARRAY(stacks, struct stack, STACKS_MAX + 1);
/* Counters, as memory for user space. key: number. */
BPF_F_TABLE("array", u32, struct stack_stats, stack_stats, STACKS_MAX + 1, BPF_F_MMAPABLE);
/* Numbers given away so far, beyond STACKS_MAX where there were more stacks. key: 0. */
BPF_F_TABLE("array", u32, u64, stack_count, 1, BPF_F_MMAPABLE);
/* Numbers of whole stacks and of those that cannot be completed. key: id, value: number. */
BPF_TABLE("hash", u64, u32, stack_numbers, STACKS_MAX);
/* The shapes of stacks met last. key: a mix of pc and sp, value: the last one met there; torn where
 * two CPUs write it at once, which its check tells as it tells any other stack. */
BPF_ARRAY(shapes, struct shape, SHAPES);

/* Id of a stack whose numbers are to be logged, also those still to come; 0: none. key: 0. */
BPF_ARRAY(logged_stack, u64, 1);
/* Changes of the stacks that are to be logged, in order: struct event. */
BPF_RINGBUF_OUTPUT(events, EVENTS_PAGES);

/* The mix of a view's words that a shape goes by. Its terms do not wait for each other. */
static __always_inline u64 check_of(const struct thread *thread, const struct shape *shape)
{
	u64 sum = (u64)shape->stack << 32 ^ shape->slot, factor = 0x9e3779b97f4a7c15ULL;
	u64 count = shape->count;

	sum += ((u64)shape->epoch << 32 ^ (u64)shape->truncated << 16 ^ shape->end) * factor;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < SHAPE_WORDS_MAX && i < count; i++) {	/* bound: the array's size */
		u32 word = shape->words[i];
		u64 value;

		if (word >= VIEW_WORDS)
			return 0;
		value = (thread->view[word] + word) * 0xbf58476d1ce4e5b9ULL;
		factor += 0x3c6ef372fe94f82aULL;	/* even: stays odd */
		sum += (value ^ value >> 32) * factor;
	}
	return sum;
}

static __always_inline u32 shape_index(u64 pc, u64 sp)
{
	return mix(pc, sp) & (SHAPES - 1);
}

/* Number of the stack that begins at `pc` and `sp`, where that can be told from its shape: then
 * every word that decided it when it was walked is the same now. STACK_UNFILED where not. */
static __always_inline u32 known_stack(struct thread *thread, u64 pc, u64 sp, u32 *truncated)
{
	u32 stack, index = shape_index(pc, sp);
	struct shape *shape = shapes.lookup(&index);
	u64 bytes;

	if (!shape || shape->pc != pc || shape->sp != sp)
		return STACK_UNFILED;
	bytes = shape->end > SAVED_REGISTERS ? (shape->end - SAVED_REGISTERS) * sizeof(u64) : 0;
	if (shape->slot != thread->slot || shape->epoch != epoch_now())
		return STACK_UNFILED;
	if (bytes > VIEW_STACK_BYTES ||
	    read_user(&thread->view[SAVED_REGISTERS], bytes, (void *)sp))
		return STACK_UNFILED;
	stack = shape->stack;
	*truncated = shape->truncated;
	return check_of(thread, shape) == shape->check ? stack : STACK_UNFILED;
}

/* Keep the shape of the stack that was just walked. */
static __always_inline void keep_shape(struct thread *thread, u32 stack)
{
	struct shape *shape = &thread->shape;
	u32 index = shape_index(shape->pc, shape->sp);

	if (shape->count > SHAPE_WORDS_MAX)
		return;
	shape->slot = thread->slot;
	shape->stack = stack;
	shape->truncated = thread->stack.truncated;
	shape->check = check_of(thread, shape);
	shapes.update(&index, shape);
}

/* Number of thread->stack, given to it here where the stack is new. STACK_UNFILED where there is no
 * room. */
static __always_inline u32 number_of(struct thread *thread)
{
	struct stack *stack = &thread->stack;
	u32 zero = 0, number, *known;
	struct stack_stats *stats;
	u64 *given, *logged;

	known = stack_numbers.lookup(&stack->id);
	if (known)
		return *known;
	given = stack_count.lookup(&zero);
	if (!given || *given >= STACKS_MAX)
		return STACK_UNFILED;
	number = __sync_fetch_and_add(given, 1) + 1;
	if (number > STACKS_MAX)
		return STACK_UNFILED;
	stacks.update(&number, stack);
	stats = stack_stats.lookup(&number);
	logged = logged_stack.lookup(&zero);
	if (stats && logged && *logged == stack->id)
		stats->log = 1;
	if (stack->truncated == ASKED)	/* nobody comes this way again */
		return number;
	/* insert: of two threads that meet here the second takes the first one's number, and its own
	 * stays without a use */
	stack_numbers.insert(&stack->id, &number);
	known = stack_numbers.lookup(&stack->id);
	return known ? *known : number;
}

/* Tell user space of a change. */
static __always_inline void log_event(u64 key, const struct block *block, u64 time_ns, u64 bytes,
				      u32 kind)
{
	struct event event = {
		.time_ns = time_ns,
		.address = key,
		.size = bytes,
		.thread = bpf_get_current_pid_tgid(),
		.stack = block->stack,
		.weight = block->weight,
		.kind = kind,
	};

	/* nobody waits for events: they are looked for at intervals */
	if (events.ringbuf_output(&event, sizeof(event), BPF_RB_NO_WAKEUP))
		lose(LOST_EVENTS_DROPPED);
}

/* Count a block into its stack's counters. */
static __always_inline void count_alloc(u64 key, const struct block *block)
{
	u32 stack = block->stack;
	struct stack_stats *stats = stack_stats.lookup(&stack);

	if (!stats)
		return;
	if (stats->allocs == stats->frees) {
		stats->oldest_ns = block->birth_ns;
		stats->oldest_freed = 0;
	} else if (block->birth_ns < stats->oldest_ns) {	/* overtaken on another processor */
		stats->oldest_ns = block->birth_ns;
	}
	__sync_fetch_and_add(&stats->bytes, block->size * block->weight);
	__sync_fetch_and_add(&stats->allocs, block->weight);
	if (stats->log)
		log_event(key, block, block->birth_ns, block->size, EVENT_ALLOC);
}

/* Take `bytes` of a block out of its stack's counters, and the block itself where it `ended`. The
 * key: of where these bytes begin. */
static __always_inline void count_free(u64 key, const struct block *block, u64 bytes, int ended)
{
	u32 stack = block->stack;
	struct stack_stats *stats = stack_stats.lookup(&stack);

	if (!stats)
		return;
	if (ended) {
		if (block->birth_ns <= stats->oldest_ns)
			stats->oldest_freed = 1;
		__sync_fetch_and_add(&stats->frees, block->weight);
	}
	__sync_fetch_and_add(&stats->bytes, -(bytes * block->weight));
	if (stats->log && block->weight)
		log_event(key, block, bpf_ktime_get_ns(), bytes, ended ? EVENT_FREE : EVENT_TRIM);
}
