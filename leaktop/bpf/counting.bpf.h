/* What stacks have done with blocks. Part of the BPF programs that hold blocks. */

/* Frees by how long the block was held, as memory for user space. key: number of the stack. */
BPF_F_TABLE("array", u32, struct stack_lifetimes, stack_lifetimes, STACKS_MAX + 1, BPF_F_MMAPABLE);

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
	__sync_fetch_and_add(&stats->alloc_bytes, block->size * block->weight);
	if (stats->log)
		log_event(key, block, block->birth_ns, block->size, EVENT_ALLOC);
}

/* Count the end of a block by how long it was held. Most are held for less than band 1 begins at:
 * they are what the other bands leave of all frees, so that they cost no counter. */
static __always_inline void count_lifetime(const struct block *block)
{
	u64 left = (bpf_ktime_get_ns() - block->birth_ns) >> LIFETIME_SHIFT;
	u32 stack = block->stack, band = 1;
	struct stack_lifetimes *lifetimes;

	if (!left)
		return;
	/* the logarithm, bit by bit: BPF cannot count zeros */
	if (left >> 16) {
		left >>= 16;
		band += 16;
	}
	if (left >> 8) {
		left >>= 8;
		band += 8;
	}
	if (left >> 4) {
		left >>= 4;
		band += 4;
	}
	if (left >> 2) {
		left >>= 2;
		band += 2;
	}
	band += left >> 1;
	if (band >= LIFETIME_BANDS)	/* the last one is open */
		band = LIFETIME_BANDS - 1;
	lifetimes = stack_lifetimes.lookup(&stack);
	if (lifetimes)
		__sync_fetch_and_add(&lifetimes->frees[band], block->weight);
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
		count_lifetime(block);	/* after it: user space reads in the other order */
	}
	__sync_fetch_and_add(&stats->bytes, -(bytes * block->weight));
	if (stats->log && block->weight)
		log_event(key, block, bpf_ktime_get_ns(), bytes, ended ? EVENT_FREE : EVENT_TRIM);
}

/* A block has come to be as many blocks more, each with its weight; -1: one less. */
static __always_inline void count_pieces(const struct block *block, s64 more)
{
	u32 stack = block->stack;
	struct stack_stats *stats = stack_stats.lookup(&stack);

	if (stats)
		__sync_fetch_and_add(&stats->allocs, more * block->weight);
}
