/* One allocator call, from its entry to its return. Part of memleak.bpf.c. */

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

static __always_inline u64 words_pushed(u64 cookie)
{
	return (u32)cookie >> COOKIE_PUSHED_SHIFT;
}

/* Where the return address lies of the function at whose entry the program runs. */
static __always_inline u64 sp_at_entry(struct pt_regs *ctx, u64 cookie)
{
	return PT_REGS_SP(ctx) + words_pushed(cookie) * sizeof(u64);
}

/* How far is_called_from looks: no C library is that deep between one traced function and another. */
#define INNER_FRAMES_MAX 16

/* Whether the function at whose entry the program runs, its return address at `sp`, was called,
 * however indirectly, by the one whose return address lies at `slot`. */
static __always_inline int is_called_from(struct thread *thread, const struct config *settings,
					  struct pt_regs *ctx, u64 sp, u64 slot)
{
	struct frame_rule *rule;
	struct walk walk = {};

	if (read_user(&walk.pc, sizeof(walk.pc), (void *)sp))
		return 0;
	walk.sp = sp + sizeof(u64);
	take_registers(thread, ctx);
	begin_walk(thread, walk.pc, walk.sp);
#pragma clang loop unroll(disable)
	for (int i = 0; i < INNER_FRAMES_MAX; i++) {	/* bound: see there */
		u64 key = key_of(thread->slot, walk.pc);

		rule = frame_rules.lookup(&key);
		if (!rule) {
			ask(thread, &walk, 0);
			return called_by_allocator(settings, sp);
		}
		if (rule->base <= BASE_UNKNOWN || step(thread, &walk, rule) || walk.sp > slot + sizeof(u64))
			return 0;
		if (walk.sp == slot + sizeof(u64))	/* its frame ends with that slot */
			return 1;
	}
	return 0;
}

/* Whether the call that is open contains one entered at `sp`, rather than having been left
 * without a return (longjmp, a thread's end): the stack lies deeper, and the slot of its return
 * address still leads to the uretprobe trampoline, as the kernel arranged, or where it was called
 * from if it has no return probe. Another function that the open one jumps to as its last act has
 * the same sp and the same slot. */
static __always_inline int is_inside(struct thread *thread, const struct config *settings,
				     struct pt_regs *ctx, u64 sp)
{
	const struct call *call = &thread->call;
	u64 slot = 0;
	u64 expected = call->end == END_BY_TRAP ? settings->trampoline : call->caller;

	if (sp > call->sp)
		return 0;
	/* the first one is over: an exception ended it, or nobody looked */
	if (sp == call->sp && PT_REGS_IP(ctx) == call->function)
		return 0;
	if (!expected || read_user(&slot, sizeof(slot), (void *)call->sp))
		return 1;
	if (slot != expected)
		return 0;
	if (call->end != END_UNSEEN)
		return 1;
	/* Its slot may be as it was long after it has returned. A function that it jumped to asks for
	 * as much, so the filters say of it what they said; sampling might not. */
	if (sp == call->sp)
		return settings->sample_rate > 1;
	return is_called_from(thread, settings, ctx, sp, call->sp);
}

/* Hold again what a realloc or mremap took out whose end was not seen, unless its address is
 * another's by now. False where it is not held. */
static __always_inline int hold_old(const struct thread *thread)
{
	const struct call *call = &thread->call;
	u64 key = key_of(thread->slot, call->old_address);
	struct block other;

	if (call->kind == CALL_MREMAP) {
		if (mappings.insert(&key, (struct block *)&call->old))
			return 0;
		note_mapping_end(thread->slot, call->old_address, call->old.size);
		return 1;
	}
	if (take_block(key, &other)) {
		put_block(key, &other);
		return 0;
	}
	return put_block(key, &call->old);
}

/* Whether a call that begins now is the thread's outermost one. One that is open but does not
 * contain it ended without a return that was seen; then it is over here. */
static __always_inline int is_outermost(struct thread *thread, const struct config *settings,
					struct pt_regs *ctx, u64 sp)
{
	struct call *call = &thread->call;

	if (!call->sp)
		return 1;
	if (is_inside(thread, settings, ctx, sp))
		return 0;
	if (call->end == END_BY_TRAP)
		lose(LOST_MISSED_RETURNS);
	/* its fate is not known: held, until its free is seen */
	if (call->old_held && !hold_old(thread))
		count_free(key_of(thread->slot, call->old_address), &call->old, call->old.size, 1);
	call->sp = 0;
	return 1;
}

/* Note the entry of an allocating function; the caller adds what else its kind needs. A call that is
 * left out is noted too: what it does inside must be seen as inside. */
static __always_inline void open_call(struct call *call, struct pt_regs *ctx,
				      const struct config *settings, u64 cookie, u32 kind,
				      u64 size)
{
	call->sp = sp_at_entry(ctx, cookie);
	call->function = PT_REGS_IP(ctx);
	call->end = words_pushed(cookie) ? END_AT_RET : END_BY_TRAP;
	call->kind = kind;
	call->size = size;
	call->weight = weight_of(size, settings);
	call->old_held = 0;
	call->rest = 0;
}

/* Note where a call goes back to that has no return probe, which would lead elsewhere. */
static __always_inline void note_caller(struct call *call)
{
	if (call->end != END_BY_TRAP)
		read_user(&call->caller, sizeof(call->caller), (void *)call->sp);
}

/* realloc: take the old block out now, for once the allocator has freed it another thread may be
 * given its address before this call returns. */
static __always_inline void take_old(struct thread *thread, u64 address)
{
	struct call *call = &thread->call;

	if (!address || !take_block(key_of(thread->slot, address), &call->old))
		return;
	call->old_address = address;
	call->old_held = 1;
}

/* mremap: take what is moved out of its mapping, of which a head or a tail may stay behind. What is
 * no mapping's head or tail is counted as unmatched, but for what an allocator moves: that was never
 * ours. */
static __always_inline void take_moved(const struct config *settings, struct thread *thread,
				       u64 address, u64 length)
{
	struct call *call = &thread->call;
	struct piece piece;
	u64 size = cut_piece(thread->slot, address, length, &piece);

	if (size != length) {
		u64 start = piece.at_end ? address + length - size : address;

		if (size && !hold_mapping(thread->slot, start, &piece.mapping))
			count_free(key_of(thread->slot, start), &piece.mapping, size, 1);
		if (!called_by_allocator(settings, call->sp))
			lose(LOST_UNMATCHED_UNMAPS);
		return;
	}
	call->old = piece.mapping;
	call->old_address = address;
	call->old_held = 1;
	call->rest = piece.left;
	call->rest_in_front = piece.at_end;
}

/* Note what is unmapped or replaced, for end_piece. */
static __always_inline void begin_ending(struct thread *thread, u64 sp, u64 address, u64 length)
{
	struct ending *ending = &thread->call.ending;

	ending->address = address;
	ending->length = length;
	ending->sp = sp;
	ending->pieces = 0;
	ending->skip_end = 0;
}

/* End a piece of what is unmapped or replaced: a whole mapping, a head or a tail. What matches no
 * mapping from either side is counted as unmatched, but for what an allocator unmaps. Returns whether
 * there may be another piece. */
static __always_inline int end_piece(const struct config *settings, struct thread *thread)
{
	struct ending *ending = &thread->call.ending;
	u64 address = ending->address, length = ending->length, size;
	struct piece piece;

	size = length ? cut_piece(thread->slot, address, length, &piece) : 0;
	if (size) {
		count_free(key_of(thread->slot, piece.at_end ? address + length - size : address),
			   &piece.mapping, size, !piece.left);
		ending->length = length - size;
		if (!piece.at_end)
			ending->address = address + size;
		if (++ending->pieces < UNMAP_PIECES_MAX)
			return 1;
	}
	if (ending->length && !called_by_allocator(settings, ending->sp))
		lose(LOST_UNMATCHED_UNMAPS);
	return 0;
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
static __always_inline u64 restore(const struct thread *thread, struct block *block)
{
	const struct call *call = &thread->call;
	u64 address = call->old_address, rest, key;

	*block = call->old;
	if (call->rest) {	/* one mapping again */
		rest = call->rest_in_front ? address - call->rest : address + block->size;
		key = key_of(thread->slot, rest);
		mappings.delete(&key);
		forget_mapping_end(thread->slot, rest, call->rest);
		if (call->rest_in_front)
			address = rest;
		block->size += call->rest;
	}
	return address;
}

/* A word of the kernel's memory; 0 where it cannot be read. */
static __always_inline u64 kernel_word(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

/* The return address that lies at `sp`, which may be another tracer's return probe's: then the
 * kernel knows what was there, of the innermost such call first. */
static __always_inline u64 return_address_at(const struct config *settings, u64 sp)
{
	u64 address = 0, uprobes, instance;

	read_user(&address, sizeof(address), (void *)sp);
	if (!settings->task_uprobes)
		return address;
	uprobes = kernel_word(bpf_get_current_task() + settings->task_uprobes);
	instance = uprobes ? kernel_word(uprobes + settings->uprobes_return) : 0;
	if (instance && kernel_word(instance + settings->return_sp) == sp)
		return kernel_word(instance + settings->return_address);
	return address;
}

/* number * size, or a size that no allocator grants where that does not fit 64 bits */
static __always_inline u64 product(u64 number, u64 size)
{
	u64 most = number ? ~0ULL / number : ~0ULL;

	asm volatile("" : "+r"(most));	/* else clang wants a 128-bit multiplication */
	return size > most ? ~0ULL : number * size;
}
