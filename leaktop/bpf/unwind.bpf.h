/* The stack step: walks the user stack with call-frame rules that user space hands down. Part of
 * memleak.bpf.c.
 *
 * Binaries without frame pointers say in .eh_frame how to leave each frame. User space reads it for
 * the addresses that are asked for and no others, and answers with one rule an address. Frame
 * pointers are one such rule: what code without call-frame information is left with. */
/* Rules. key: of the code address, value: how to leave a frame there. */
BPF_TABLE("hash", u64, struct frame_rule, frame_rules, RULES_MAX);
/* Grows when rules are taken back: stacks are not what they were by then. key: 0. */
BPF_ARRAY(epoch, u64, 1);
/* Stacks that need a rule, in order: struct question and an image of IMAGE_BYTES. */
BPF_RINGBUF_OUTPUT(questions, QUESTIONS_PAGES);
/* More of them, while that is full: struct question and an image of BRIEF_IMAGE_BYTES. */
BPF_RINGBUF_OUTPUT(brief_questions, QUESTIONS_PAGES);

/* Note that a word of the view decided how a stack goes on. */
static __always_inline void note_word(struct thread *thread, u64 word)
{
	u64 count = thread->shape.count;

	if (count < SHAPE_WORDS_MAX)
		thread->shape.words[count] = word;
	thread->shape.count = count + 1;	/* too many: then it is not kept */
	if (word >= thread->shape.end)
		thread->shape.end = word + 1;
}

/* Read a word of the stack, into thread->word: from the view where it is in there. (Into memory of
 * a map: what the verifier does not track makes no states that differ.) */
static __always_inline int read_word(struct thread *thread, u64 address)
{
	u64 offset = address - thread->view_start;

	if (offset < thread->view_bytes && !(offset & 7)) {
		offset = SAVED_REGISTERS + (offset >> 3 & (VIEW_STACK_BYTES / 8 - 1));
		thread->word = thread->view[offset];
		note_word(thread, offset);
		return 0;
	}
	thread->shape.count = SHAPE_WORDS_MAX + 1;
	return read_user(&thread->word, sizeof(thread->word), (void *)address);
}

/* Read a register that the callee saves, in the frame where the walk stands, into thread->word. */
static __always_inline int read_register(struct thread *thread, u32 i)
{
	u64 at;

	if (i >= SAVED_REGISTERS)
		return -1;
	at = thread->saved_at[i];
	if (at)
		return read_word(thread, at);
	thread->word = thread->view[i];
	note_word(thread, i);
	return 0;
}

/* Step out of a frame that the kernel made to run a signal handler: the registers of what was
 * interrupted lie in its struct ucontext (arch/x86/include/uapi/asm/sigcontext.h). */
static __always_inline int leave_signal_frame(struct thread *thread, struct walk *walk)
{
	u64 context = walk->sp;

	if (read_word(thread, context + UCONTEXT_SP))
		return -1;
	walk->sp = thread->word;
	if (read_word(thread, context + UCONTEXT_IP))
		return -1;
	/* it was interrupted at this address, not called from before it: rules are looked up, as
	 * names are, for the byte before an address */
	walk->pc = thread->word + 1;
	thread->saved_at[0] = context + UCONTEXT_BP;
	thread->saved_at[1] = context + UCONTEXT_BX;
	for (int i = 2; i < SAVED_REGISTERS; i++)	/* r12..r15 lie in a row */
		thread->saved_at[i] = context + UCONTEXT_R12 + (i - 2) * sizeof(u64);
	return 0;
}

/* Step out of one frame by its rule. 0: done. */
static __always_inline int leave_frame(struct thread *thread, struct walk *walk,
				       const struct frame_rule *rule)
{
	u64 cfa, from;

	thread->word = walk->sp;
	if (rule->base != BASE_SP && read_register(thread, rule->base - BASE_SAVED))
		return -1;
	if (rule->flags & FLAG_LOADED && read_word(thread, thread->word + rule->load_offset))
		return -1;
	cfa = thread->word + rule->cfa_offset;
	if (cfa <= walk->sp)	/* a stack grows down; anything else would be a loop */
		return -1;
	thread->word = cfa;
	if (rule->flags & FLAG_SLOTS_FROM_FP && read_register(thread, 0))
		return -1;
	from = thread->word;
	for (int i = 0; i < SAVED_REGISTERS; i++) {
		s32 slot = (s8)rule->slots[i];

		if (slot == SLOT_LOST)
			thread->saved_at[i] = 1;	/* no address: reading it fails */
		else if (slot != SLOT_SAME)
			thread->saved_at[i] = from + slot * 8;
	}
	if (read_word(thread, cfa - 8))
		return -1;
	walk->sp = cfa;
	walk->pc = thread->word;
	return 0;
}

/* Copy `most` bytes, whole pages, of the stack from `sp` on, or as much as there is: a copy that
 * goes beyond its mapping fails as a whole, so one page less is tried. */
static __always_inline u64 copy_stack(void *image, const u32 most, u64 sp)
{
	u64 size = most - (sp & (PAGE_SIZE - 1));

	for (int i = 0; i < most / PAGE_SIZE; i++) {	/* bound: the pages of an image */
		if (size <= most && !read_user(image, size, (void *)sp))
			return size;
		size -= PAGE_SIZE;
	}
	return 0;
}

/* The same with an image of less than a page: as much, or up to the end of the page. */
static __always_inline u64 copy_little(void *image, const u32 most, u64 sp)
{
	u64 size = PAGE_SIZE - (sp & (PAGE_SIZE - 1));

	if (!read_user(image, most, (void *)sp))
		return most;
	if (size < most && !read_user(image, size, (void *)sp))
		return size;
	return 0;
}

/* Fill in a question, all but its image. */
static __always_inline void fill_question(struct question *question, struct thread *thread,
					  const struct walk *walk, u64 stack_id)
{
	question->stack_id = stack_id;
	question->pc = walk->pc;
	question->sp = question->image_start = walk->sp;
	question->slot = thread->slot;
	question->lost = 0;
	for (u32 i = 0; i < SAVED_REGISTERS; i++) {
		thread->word = 0;
		if (read_register(thread, i))
			question->lost |= 1U << i;
		question->registers[i] = thread->word;
	}
}

/* Ask for the rule of the address where a walk ended. False where there is no room. A burst on a new
 * path asks for every one of its stacks until the first is answered: the rest with small images. */
static __always_inline int ask(struct thread *thread, const struct walk *walk, u64 stack_id)
{
	struct question *question = questions.ringbuf_reserve(sizeof(*question) + IMAGE_BYTES);

	if (question) {
		fill_question(question, thread, walk, stack_id);
		question->image_size = copy_stack(question + 1, IMAGE_BYTES, walk->sp);
		if (!question->image_size) {	/* a page of the stack that nobody has touched yet */
			question->image_start = (walk->sp & ~(PAGE_SIZE - 1)) + PAGE_SIZE;
			question->image_size = copy_stack(question + 1, IMAGE_BYTES,
							  question->image_start);
		}
		questions.ringbuf_submit(question, 0);
		return 1;
	}
	question = brief_questions.ringbuf_reserve(sizeof(*question) + BRIEF_IMAGE_BYTES);
	if (!question)
		return 0;
	fill_question(question, thread, walk, stack_id);
	question->image_size = copy_little(question + 1, BRIEF_IMAGE_BYTES, walk->sp);
	brief_questions.ringbuf_submit(question, 0);
	return 1;
}

static __always_inline u32 epoch_now(void)
{
	u32 zero = 0;
	u64 *now = epoch.lookup(&zero);

	return now ? *now : 0;
}

/* Put the registers that a callee saves into the view. */
static __always_inline void take_registers(struct thread *thread, const struct pt_regs *ctx)
{
	thread->view[0] = ctx->bp;	/* arch.py: Registers.saved */
	thread->view[1] = ctx->bx;
	thread->view[2] = ctx->r12;
	thread->view[3] = ctx->r13;
	thread->view[4] = ctx->r14;
	thread->view[5] = ctx->r15;
}

/* Begin a walk at `pc` and `sp` with the registers that the view has. */
static __always_inline void begin_walk(struct thread *thread, u64 pc, u64 sp)
{
	thread->shape.epoch = epoch_now();	/* before any rule is looked up */
	thread->shape.count = 0;
	thread->shape.end = 0;
	thread->view_start = sp;
	thread->view_bytes = copy_stack(&thread->view[SAVED_REGISTERS], VIEW_STACK_BYTES, sp);
	for (int i = 0; i < SAVED_REGISTERS; i++)
		thread->saved_at[i] = 0;
}

/* Step out of the frame that the walk stands in by the rule for its pc. 0: done. */
static __always_inline int step(struct thread *thread, struct walk *walk,
				const struct frame_rule *rule)
{
	return rule->flags & FLAG_SIGNAL ? leave_signal_frame(thread, walk)
					 : leave_frame(thread, walk, rule);
}

/* Begin to fill thread->stack with the stack that begins at `pc` and `sp` with the registers in the
 * view, and thread->shape with what decides it. */
static __always_inline void begin_stack(struct thread *thread, u64 pc, u64 sp)
{
	begin_walk(thread, pc, sp);
	thread->shape.pc = thread->walk.pc = pc;
	thread->shape.sp = thread->walk.sp = sp;
	thread->walk.id = mix(STACK_ID_SEED, thread->slot);
	thread->stack.slot = thread->slot;
	thread->stack.depth = 0;
	thread->stack.truncated = TRUNCATED;
}

/* Frames that one round of a walk steps out of. The verifier follows each of them, so a long walk
 * is several rounds of a short program: a tail call each, of which the kernel allows 33. */
#define ROUND_FRAMES 16

/* What a round of a walk came to. */
enum round {
	ROUND_END = 0,		/* the stack is as whole as it gets */
	ROUND_UNKNOWN,		/* there is no rule for the address that it stands at */
	ROUND_MORE,		/* another round can go on */
};

/* Fill thread->stack with the next frames of the walk. */
static __always_inline enum round walk_round(struct thread *thread)
{
	struct stack *stack = &thread->stack;
	struct walk walk = thread->walk;
	struct frame_rule *rule;
	enum round came_to = ROUND_MORE;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < ROUND_FRAMES; i++) {	/* bound: see there */
		u64 depth = stack->depth, key = key_of(thread->slot, walk.pc);

		if (depth >= STACK_DEPTH_MAX) {
			came_to = ROUND_END;
			break;
		}
		stack->pc[depth] = walk.pc;
		stack->depth = depth + 1;
		walk.id = mix(walk.id, walk.pc);
		rule = frame_rules.lookup(&key);
		if (!rule) {
			came_to = ROUND_UNKNOWN;
			break;
		}
		if (rule->base == BASE_OUTERMOST) {
			stack->truncated = WHOLE;
			came_to = ROUND_END;
			break;
		}
		if (rule->base == BASE_UNKNOWN || step(thread, &walk, rule)) {
			came_to = ROUND_END;
			break;
		}
		if (!walk.pc) {	/* a stack that someone made by hand ends in 0 */
			stack->truncated = WHOLE;
			came_to = ROUND_END;
			break;
		}
	}
	thread->walk = walk;
	return came_to;
}

/* Give thread->stack its id, and ask for the rule that it ends without. */
static __always_inline void end_stack(struct thread *thread, enum round came_to)
{
	struct stack *stack = &thread->stack;
	u64 id = mix(thread->walk.id, stack->truncated);

	if (came_to == ROUND_UNKNOWN) {	/* an id of its own, so that it can be completed by itself */
		u64 alone = mix(mix(id, bpf_ktime_get_ns()), bpf_get_current_pid_tgid()) | 2;

		thread->shape.count = SHAPE_WORDS_MAX + 1;	/* will be another one */
		if (ask(thread, &thread->walk, alone)) {
			stack->truncated = ASKED;
			id = alone;
		}
	}
	stack->id = id <= STACK_ID_UNFILED ? id + STACK_ID_UNFILED + 1 : id;
}
