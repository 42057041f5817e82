/* The stack step: walks the user stack with call-frame rules that user space hands down. Part of
 * memleak.bpf.c.
 *
 * Binaries without frame pointers say in .eh_frame how to leave each frame. User space reads it for
 * the addresses that are asked for and no others, and answers with one rule an address. Frame
 * pointers are one such rule: what code without call-frame information is left with. */
/* Rules. key: (code address, process), value: how to leave a frame there. */
BPF_TABLE("hash", struct block_key, struct frame_rule, frame_rules, RULES_MAX);
/* Stacks that need a rule, in order: struct question. */
BPF_RINGBUF_OUTPUT(questions, QUESTIONS_PAGES);

/* Where a walk is: the registers of the frame that it stands in. */
struct walk {
	u64 pc, sp, bp;
	struct thread *thread;	/* has the other saved registers, lazily: few rules need one */
};

/* The value of a register that the callee saves, in the frame where the walk stands. */
static __always_inline int saved_register(const struct walk *walk, u32 i, u64 *value)
{
	u64 at;

	if (i >= SAVED_REGISTERS)
		return -1;
	at = walk->thread->saved_at[i];
	*value = i ? walk->thread->registers[i] : walk->bp;
	return i && at ? read_user(value, sizeof(*value), (void *)at) : 0;
}

/* Step out of a frame that the kernel made to run a signal handler: the registers of what was
 * interrupted lie in its struct ucontext (arch/x86/include/uapi/asm/sigcontext.h). */
static __always_inline int leave_signal_frame(struct walk *walk)
{
	u64 context = walk->sp;
	u64 pair[2];	/* sp, ip */

	if (read_user(pair, sizeof(pair), (void *)(context + UCONTEXT_SP)))
		return -1;
	if (read_user(&walk->bp, sizeof(u64), (void *)(context + UCONTEXT_BP)))
		return -1;
	walk->thread->saved_at[1] = context + UCONTEXT_BX;
	for (int i = 2; i < SAVED_REGISTERS; i++)	/* r12..r15 lie in a row */
		walk->thread->saved_at[i] = context + UCONTEXT_R12 + (i - 2) * sizeof(u64);
	walk->sp = pair[0];
	/* it was interrupted at this address, not called from before it: rules are looked up, as
	 * names are, for the byte before an address */
	walk->pc = pair[1] + 1;
	return 0;
}

/* Step out of one frame by its rule. 0: done. */
static __always_inline int leave_frame(struct walk *walk, const struct frame_rule *rule)
{
	u64 cfa, from, pair[2];	/* pair: saved frame pointer, return address */

	if (rule->base == BASE_SP)
		cfa = walk->sp;
	else if (saved_register(walk, rule->base - BASE_SAVED, &cfa))
		return -1;
	if (rule->flags & FLAG_LOADED &&
	    read_user(&cfa, sizeof(cfa), (void *)(cfa + rule->load_offset)))
		return -1;
	cfa += rule->cfa_offset;
	if (cfa <= walk->sp)	/* a stack grows down; anything else would be a loop */
		return -1;
	from = rule->flags & FLAG_SLOTS_FROM_FP ? walk->bp : cfa;
	for (int i = 1; i < SAVED_REGISTERS; i++) {
		s32 slot = (s8)rule->slots[i];

		if (slot == SLOT_LOST)
			walk->thread->saved_at[i] = 1;	/* no address: reading it fails */
		else if (slot != SLOT_SAME)
			walk->thread->saved_at[i] = from + slot * 8;
	}
	if ((s8)rule->slots[0] == -2 && from == cfa) {	/* the frame pointer lies beside it */
		if (read_user(pair, sizeof(pair), (void *)(cfa - 16)))
			return -1;
		walk->bp = pair[0];
		walk->pc = pair[1];
	} else {
		s32 slot = (s8)rule->slots[0];

		if (read_user(&walk->pc, sizeof(u64), (void *)(cfa - 8)))
			return -1;
		if (slot == SLOT_LOST)
			walk->bp = 0;
		else if (slot != SLOT_SAME &&
			 read_user(&walk->bp, sizeof(u64), (void *)(from + slot * 8)))
			return -1;
	}
	walk->sp = cfa;
	return 0;
}

/* Copy the stack from `sp` on, as much as there is: a copy that goes beyond its mapping fails as a
 * whole, so one page less is tried. */
static __always_inline u64 copy_stack(u8 *image, u64 sp)
{
	u64 size = IMAGE_BYTES - (sp & (PAGE_SIZE - 1));

	for (int i = 0; i < IMAGE_BYTES / PAGE_SIZE; i++) {	/* bound: the pages of an image */
		if (size <= IMAGE_BYTES && !read_user(image, size, (void *)sp))
			return size;
		size -= PAGE_SIZE;
	}
	return 0;
}

/* Ask for the rule of the address where a walk ended. False where the ring is full. */
static __always_inline int ask(const struct walk *walk, u64 stack_id, u32 pid)
{
	struct question *question = questions.ringbuf_reserve(sizeof(*question));

	if (!question)
		return 0;
	question->stack_id = stack_id;
	question->pc = walk->pc;
	question->sp = walk->sp;
	question->pid = pid;
	question->lost = 0;
	for (u32 i = 0; i < SAVED_REGISTERS; i++) {
		u64 value = 0;

		if (saved_register(walk, i, &value))
			question->lost |= 1U << i;
		question->registers[i] = value;
	}
	question->image_size = copy_stack(question->image, walk->sp);
	questions.ringbuf_submit(question, 0);
	return 1;
}

/* A step of a stack's id, a 64-bit mix of its return addresses. Unlike the buckets of a
 * stack-trace map, any two of 16,384 stacks share an id with a probability of 1 in 10^11. */
static __always_inline u64 mix(u64 id, u64 value)
{
	id = (id ^ value) * 0x9e3779b97f4a7c15ULL;
	return id ^ id >> 32;
}

/* Fill thread->stack with the stack that begins at `pc` and `sp` with thread->registers, and return
 * its id. */
static __always_inline u64 take_stack(struct thread *thread, u64 pc, u64 sp)
{
	struct stack *stack = &thread->stack;
	struct walk walk = {
		.pc = pc, .sp = sp, .bp = thread->registers[0], .thread = thread,
	};
	struct block_key key = key_of(0);
	struct frame_rule *rule;
	u64 id = 0x243f6a8885a308d3ULL;
	int unknown = 0;

	stack->depth = 0;
	stack->truncated = TRUNCATED;
	for (int i = 0; i < SAVED_REGISTERS; i++)
		thread->saved_at[i] = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < STACK_DEPTH_MAX; i++) {	/* bound: the array's size */
		stack->pc[i] = walk.pc;
		stack->depth = i + 1;
		id = mix(id, walk.pc);
		key.address = walk.pc;
		rule = frame_rules.lookup(&key);
		if (!rule) {
			unknown = 1;
			break;
		}
		if (rule->base == BASE_OUTERMOST) {
			stack->truncated = WHOLE;
			break;
		}
		if (rule->base == BASE_UNKNOWN)
			break;
		if (rule->flags & FLAG_SIGNAL ? leave_signal_frame(&walk)
					      : leave_frame(&walk, rule))
			break;
		if (!walk.pc) {	/* a stack that someone made by hand ends in 0 */
			stack->truncated = WHOLE;
			break;
		}
	}
	id = mix(id, stack->truncated);
	if (unknown) {	/* an id of its own, so that it can be completed by itself */
		u64 alone = mix(mix(id, bpf_ktime_get_ns()), bpf_get_current_pid_tgid()) | 2;

		if (ask(&walk, alone, key.pid)) {
			stack->truncated = ASKED;
			return alone;
		}
	}
	return id <= STACK_ID_UNFILED ? id + STACK_ID_UNFILED + 1 : id;
}
