/* What every program here stands on: reading memory, keys, losses. Part of every BPF source. */

/* bpf_probe_read_user under another name: bcc reads all of /proc/kallsyms for each call by that one
 * (src/cc/frontends/clang/b_frontend_action.cc), to see whether the kernel has it; 5.5 and later do
 * (kernel commit 6ae08ae3dea2). That is 0.1 s a call at start-up. */
static long (*read_user)(void *to, u32 size, const void *from) = (void *)BPF_FUNC_probe_read_user;

/* Losses by name. key: enum loss, value: how often. */
BPF_ARRAY(losses, u64, LOSS_COUNT);

static __always_inline void lose(u32 loss)
{
	u64 *count = losses.lookup(&loss);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* The key of an address in the process of a slot. */
static __always_inline u64 key_of(u32 slot, u64 address)
{
	return (address & (1ULL << KEY_SLOT_SHIFT) - 1) | (u64)slot << KEY_SLOT_SHIFT;
}
