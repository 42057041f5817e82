/* Which blocks are held: a table of our own, since a hash of the kernel's takes an element from a
 * list under a lock for each malloc, and gives it back for each free. Part of every BPF program.
 *
 * A block's key, its address in one of the processes, mixes to a set of a few places. Whoever changes
 * a place's key from 0 with a compare-and-swap owns it; free gives it back by writing 0. What finds
 * its set full goes to a hash of the kernel's, and the set counts how many did, so that the hash is
 * asked only where it has to be. Two CPUs never meet in one place, except in a program that frees a
 * block twice. */

/* Live blocks. key: a mix of a block's key, value: the blocks of all such keys. User space reads
 * it as memory. */
BPF_F_TABLE("array", u32, struct block_set, block_sets, BLOCK_SETS, BPF_F_MMAPABLE);
/* Live blocks that found their set full. key: the block's, value: the block. */
BPF_TABLE("hash", u64, struct block, spilled_blocks, SPILLED_MAX);

#define BEING_FILLED 1UL	/* in a key; blocks are aligned, so theirs have it clear */

static __always_inline struct block_set *set_of(u64 key)
{
	/* allocators hand out neighbours 16 bytes apart, so the low bits say little */
	u32 index = (key >> 4) * 0x9e3779b97f4a7c15ULL >> 40 & (BLOCK_SETS - 1);

	return block_sets.lookup(&index);
}

/* Take a block off the books, into `block`. False where it is not on them. */
static __always_inline int take_block(u64 key, struct block *block)
{
	struct block_set *set = set_of(key);
	struct block *spilled;

	if (!set || !key)
		return 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < SET_WAYS; i++) {	/* bound: the set's places */
		if (set->key[i] != key)
			continue;
		/* the place may be another block's once it is free */
		block->size = set->block[i].size;
		block->birth_ns = set->block[i].birth_ns;
		block->stack = set->block[i].stack;
		block->weight = set->block[i].weight;
		block->thread = set->thread[i];
		block->pad = 0;
		return __sync_val_compare_and_swap(&set->key[i], key, 0) == key;
	}
	if (!set->spilled)
		return 0;
	spilled = spilled_blocks.lookup(&key);
	if (!spilled)
		return 0;
	*block = *spilled;
	if (spilled_blocks.delete(&key))
		return 0;
	__sync_fetch_and_add(&set->spilled, -1);
	return 1;
}

/* Bytes of the block that is on the books under a key; 0 where there is none. */
static __always_inline u64 size_held(u64 key)
{
	struct block_set *set = set_of(key);
	struct block *spilled;

	if (!set)
		return 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < SET_WAYS; i++)	/* bound: the set's places */
		if (set->key[i] == key)
			return set->block[i].size;
	if (!set->spilled)
		return 0;
	spilled = spilled_blocks.lookup(&key);
	return spilled ? spilled->size : 0;
}

/* Put a block on the books. False where there is no room. */
static __always_inline int put_block(u64 key, const struct block *block)
{
	struct block_set *set = set_of(key);

	if (!set)
		return 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < SET_WAYS; i++) {	/* bound: the set's places */
		if (set->key[i] ||
		    __sync_val_compare_and_swap(&set->key[i], 0, key | BEING_FILLED))
			continue;
		set->block[i].size = block->size;
		set->block[i].birth_ns = block->birth_ns;
		set->block[i].stack = block->stack;
		set->block[i].weight = block->weight;
		set->thread[i] = block->thread;
		asm volatile("" : : : "memory");	/* valid before it can be found */
		set->key[i] = key;
		return 1;
	}
	if (spilled_blocks.insert(&key, (struct block *)block))
		return 0;
	__sync_fetch_and_add(&set->spilled, 1);
	return 1;
}

/* Begin to hold a block; counts nothing, but for one that is replaced. False where there is no
 * room. */
static __always_inline int hold_block(u64 key, const struct block *block)
{
	struct block before;

	if (take_block(key, &before)) {
		count_free(key, &before, before.size, 1);
		lose(LOST_MISSED_FREES);
	}
	if (put_block(key, block))
		return 1;
	lose(LOST_ALLOCS_FULL);
	return 0;
}
