/* What user space asks for. Part of memleak.bpf.c and of kmem.bpf.c. */

/* Live settings. key: a process's slot, 0 of the kernel, value: struct config. */
BPF_ARRAY(config, struct config, PROCESSES_MAX);

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
