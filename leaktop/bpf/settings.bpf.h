/* What user space asks for, and what it is told in return. Part of every BPF program. */

/* Live settings. key: a process's slot, 0 of the kernel, value: struct config. */
BPF_ARRAY(config, struct config, PROCESSES_MAX);
/* Losses by name. key: enum loss, value: how often. */
BPF_ARRAY(losses, u64, LOSS_COUNT);

static __always_inline void lose(u32 loss)
{
	u64 *count = losses.lookup(&loss);

	if (count)
		__sync_fetch_and_add(count, 1);
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
