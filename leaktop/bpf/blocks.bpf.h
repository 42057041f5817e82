/* Which blocks are held, and where mappings begin and end. Part of memleak.bpf.c. */

static __always_inline void note_mapping_end(u64 start, u64 size)
{
	struct block_key end = key_of(start + size);

	if (mapping_ends.update(&end, &start))
		lose(LOST_MAPPING_ENDS_FULL);
}

static __always_inline void forget_mapping_end(u64 start, u64 size)
{
	struct block_key end = key_of(start + size);
	u64 *known = mapping_ends.lookup(&end);

	if (known && *known == start)
		mapping_ends.delete(&end);
}

/* Begin to hold a block; counts nothing, but for one that is replaced. False where there is no
 * room. */
static __always_inline int hold(u64 address, const struct block *block)
{
	struct block_key key = key_of(address);
	struct block *held, before;

	/* insert fails alike where the address is held and where the map is full */
	if (blocks.insert(&key, (struct block *)block)) {
		held = blocks.lookup(&key);
		if (!held) {
			lose(LOST_ALLOCS_FULL);
			return 0;
		}
		before = *held;
		blocks.update(&key, (struct block *)block);
		if (before.mapping)
			forget_mapping_end(address, before.size);
		count_free(&before, before.size, 1);
		lose(LOST_MISSED_FREES);
	}
	if (block->mapping)
		note_mapping_end(address, block->size);
	return 1;
}

/* What one step of unmapping took off. */
struct piece {
	struct block block;	/* the mapping it was of, with the piece's size */
	u64 left;		/* bytes of that mapping that stay held; 0: it ended */
	u32 at_end;		/* 1: taken off the end of the range, else off its start */
};

/* Cut off [address, address + length) what the mapping that begins or ends with it has in it. What
 * is left of that mapping stays held. Returns the piece's size, 0 where there is no such mapping.
 * Counts nothing. */
static __always_inline u64 cut_piece(u64 address, u64 length, struct piece *piece)
{
	struct block_key key = key_of(address), end = key_of(address + length);
	struct block *held = blocks.lookup(&key), rest;
	u64 *start;

	piece->at_end = !held || !held->mapping;
	if (piece->at_end) {
		start = mapping_ends.lookup(&end);
		if (!start)
			return 0;
		key.address = *start;
		held = blocks.lookup(&key);
		if (!held || !held->mapping || key.address + held->size != end.address)
			return 0;
	}
	piece->block = rest = *held;
	if (blocks.delete(&key))
		return 0;	/* another thread was first */
	forget_mapping_end(key.address, rest.size);
	if (rest.size <= length) {
		piece->left = 0;
		return rest.size;
	}
	piece->block.size = length;
	piece->left = rest.size -= length;
	if (!hold(piece->at_end ? key.address : end.address, &rest))
		count_free(&rest, rest.size, 1);
	return length;
}
