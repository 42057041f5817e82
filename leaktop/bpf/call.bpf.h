/* One allocator call, from its entry to its return. Part of memleak.bpf.c. */

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
						     struct block *block, int counting)
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
	if (!counting)	/* only so that the rules for it are there by then */
		return 0;
	return stats_of(thread, &block->stack_id);
}

/* number * size, or a size that no allocator grants where that does not fit 64 bits */
static __always_inline u64 product(u64 number, u64 size)
{
	u64 most = number ? ~0ULL / number : ~0ULL;

	asm volatile("" : "+r"(most));	/* else clang wants a 128-bit multiplication */
	return size > most ? ~0ULL : number * size;
}
