/* Stacks by number: what they are, and what they have done. Part of every BPF program. */

/* Frames, written once, before the stack's number is known to anyone. key: number, value: the
 * stack; all zero under STACK_UNFILED. */
BPF_ARRAY(stacks, struct stack, STACKS_MAX + 1);
/* Counters, as memory for user space. key: number. */
BPF_F_TABLE("array", u32, struct stack_stats, stack_stats, STACKS_MAX + 1, BPF_F_MMAPABLE);
/* Numbers given away so far, beyond STACKS_MAX where there were more stacks. key: 0. */
BPF_F_TABLE("array", u32, u64, stack_count, 1, BPF_F_MMAPABLE);
/* Numbers of whole stacks and of those that cannot be completed. key: id, value: number. */
BPF_TABLE("hash", u64, u32, stack_numbers, STACKS_MAX);

/* Id of a stack whose numbers are to be logged, also those still to come; 0: none. key: 0. */
BPF_ARRAY(logged_stack, u64, 1);
/* Changes of the stacks that are to be logged, in order: struct event. */
BPF_RINGBUF_OUTPUT(events, EVENTS_PAGES);

#define STACK_ID_SEED 0x243f6a8885a308d3ULL	/* what an id is mixed from */

/* A step of a stack's id, a 64-bit mix of its return addresses. Unlike the buckets of a
 * stack-trace map, any two of 16,384 stacks share an id with a probability of 1 in 10^11. */
static __always_inline u64 mix(u64 id, u64 value)
{
	id = (id ^ value) * 0x9e3779b97f4a7c15ULL;
	return id ^ id >> 32;
}

/* Number of a stack, given to it here where the stack is new. STACK_UNFILED where there is no room. */
static __always_inline u32 number_of(struct stack *stack)
{
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
