/* Which blocks are held: a table of our own, since a hash of the kernel's takes an element from a
 * list under a lock for each malloc, and gives it back for each free. Part of memleak.bpf.c.
 *
 * A block's address mixes to a set of a few places. Whoever changes a place's address from 0 with a
 * compare-and-swap owns it; free gives it back by writing 0. What finds its set full goes to a hash
 * of the kernel's, and the set counts how many did, so that the hash is asked only where it has to
 * be. Two CPUs never meet in one place, except in a program that frees a block twice. */

/* Live blocks. key: a mix of the address, value: the blocks of all such addresses. User space reads
 * it as memory. */
BPF_F_TABLE("array", u32, struct block_set, block_sets, BLOCK_SETS, BPF_F_MMAPABLE);
/* Live blocks that found their set full. key: place, value: the block. */
BPF_TABLE("hash", struct place, struct block, spilled_blocks, SPILLED_MAX);

#define BEING_FILLED 1UL	/* in an address; blocks are aligned, so theirs have it clear */

static __always_inline struct block_set *set_of(u64 address)
{
	/* allocators hand out neighbours 16 bytes apart, so the low bits say little */
	u32 index = (address >> 4) * 0x9e3779b97f4a7c15ULL >> 40 & (BLOCK_SETS - 1);

	return block_sets.lookup(&index);
}

/* Take a block off the books, into `block`. False where it is not on them. */
static __always_inline int take_block(u64 address, struct block *block)
{
	struct block_set *set = set_of(address);
	struct place place;
	struct block *spilled;

	if (!set || !address)
		return 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < SET_WAYS; i++) {	/* bound: the set's places */
		if (set->address[i] != address)
			continue;
		*block = set->block[i];	/* the place may be another block's once it is free */
		return __sync_val_compare_and_swap(&set->address[i], address, 0) == address;
	}
	if (!set->spilled)
		return 0;
	place = place_of(address);
	spilled = spilled_blocks.lookup(&place);
	if (!spilled)
		return 0;
	*block = *spilled;
	if (spilled_blocks.delete(&place))
		return 0;
	__sync_fetch_and_add(&set->spilled, -1);
	return 1;
}

/* Put a block on the books. False where there is no room. */
static __always_inline int put_block(u64 address, const struct block *block)
{
	struct block_set *set = set_of(address);
	struct place place;

	if (!set)
		return 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < SET_WAYS; i++) {	/* bound: the set's places */
		if (set->address[i] ||
		    __sync_val_compare_and_swap(&set->address[i], 0, address | BEING_FILLED))
			continue;
		set->block[i] = *block;
		asm volatile("" : : : "memory");	/* valid before it can be found */
		set->address[i] = address;
		return 1;
	}
	place = place_of(address);
	if (spilled_blocks.insert(&place, (struct block *)block))
		return 0;
	__sync_fetch_and_add(&set->spilled, 1);
	return 1;
}

/* Begin to hold a block; counts nothing, but for one that is replaced. False where there is no
 * room. */
static __always_inline int hold_block(u64 address, const struct block *block)
{
	struct block before;

	if (take_block(address, &before)) {
		count_free(&before, before.size, 1);
		lose(LOST_MISSED_FREES);
	}
	if (put_block(address, block))
		return 1;
	lose(LOST_ALLOCS_FULL);
	return 0;
}
