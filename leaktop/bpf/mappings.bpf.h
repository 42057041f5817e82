/* Which mappings are held, and where they begin and end. Part of memleak.bpf.c. */

/* Live mappings. key: their start, value: struct block. Those that do not count, since
 * they are older than the tracing or were left out, are here with weight 0, so that munmap can tell
 * them from what was missed. */
BPF_TABLE("hash", u64, struct block, mappings, MAPPINGS_MAX);
/* Where live mappings end, so that munmap can cut their tails. key: the end, value: their start. */
BPF_TABLE("hash", u64, u64, mapping_ends, MAPPINGS_MAX);

static __always_inline void note_mapping_end(u32 slot, u64 start, u64 size)
{
	u64 end = key_of(slot, start + size);

	if (mapping_ends.update(&end, &start))
		lose(LOST_MAPPING_ENDS_FULL);
}

static __always_inline void forget_mapping_end(u32 slot, u64 start, u64 size)
{
	u64 end = key_of(slot, start + size);
	u64 *known = mapping_ends.lookup(&end);

	if (known && *known == start)
		mapping_ends.delete(&end);
}

/* Begin to hold a mapping; counts nothing, but for one that is replaced. False where there is no
 * room. */
static __always_inline int hold_mapping(u32 slot, u64 start, const struct block *mapping)
{
	u64 key = key_of(slot, start);
	struct block *held, before;

	/* insert fails alike where the address is held and where the map is full */
	if (mappings.insert(&key, (struct block *)mapping)) {
		held = mappings.lookup(&key);
		if (!held) {
			lose(LOST_ALLOCS_FULL);
			return 0;
		}
		before = *held;
		mappings.update(&key, (struct block *)mapping);
		forget_mapping_end(slot, start, before.size);
		count_free(key, &before, before.size, 1);
		lose(LOST_MISSED_FREES);
	}
	note_mapping_end(slot, start, mapping->size);
	return 1;
}

/* What one step of unmapping took off. */
struct piece {
	struct block mapping;	/* the mapping it was of, with the piece's size */
	u64 left;		/* bytes of that mapping that stay held; 0: it ended */
	u32 at_end;		/* 1: taken off the end of the range, else off its start */
};

/* Cut off [address, address + length) what the mapping that begins or ends with it has in it. What
 * is left of that mapping stays held. Returns the piece's size, 0 where there is no such mapping.
 * Counts nothing. */
static __always_inline u64 cut_piece(u32 slot, u64 address, u64 length, struct piece *piece)
{
	u64 start = address, key = key_of(slot, start), end = key_of(slot, address + length);
	struct block *held = mappings.lookup(&key), rest;
	u64 *known;

	piece->at_end = !held;
	if (piece->at_end) {
		known = mapping_ends.lookup(&end);
		if (!known)
			return 0;
		start = *known;
		key = key_of(slot, start);
		held = mappings.lookup(&key);
		if (!held || start + held->size != address + length)
			return 0;
	}
	piece->mapping = rest = *held;
	if (mappings.delete(&key))
		return 0;	/* another thread was first */
	forget_mapping_end(slot, start, rest.size);
	if (rest.size <= length) {
		piece->left = 0;
		return rest.size;
	}
	piece->mapping.size = length;
	piece->left = rest.size -= length;
	if (!piece->at_end)
		start = address + length;
	if (!hold_mapping(slot, start, &rest))
		count_free(key_of(slot, start), &rest, rest.size, 1);
	return length;
}
