/* Which stack a call has without walking, where it is as it was. Part of memleak.bpf.c. */

/* The shapes of stacks met last. key: a mix of pc and sp, value: the last one met there; torn where
 * two CPUs write it at once, which its check tells as it tells any other stack. */
BPF_ARRAY(shapes, struct shape, SHAPES);

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
