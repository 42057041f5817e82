/* Which mappings are held, and where they begin and end. Part of memleak.bpf.c. */

/* Live mappings. key: their start, value: size, birth, stack, weight. Those that do not count, since
 * they are older than the tracing or were left out, are here with weight 0, so that munmap can tell
 * them from what was missed. */
BPF_TABLE("hash", struct place, struct block, mappings, MAPPINGS_MAX);
/* Where live mappings end, so that munmap can cut their tails. key: the end, value: their start. */
BPF_TABLE("hash", struct place, u64, mapping_ends, MAPPINGS_MAX);

static __always_inline void note_mapping_end(u64 start, u64 size)
{
	struct place end = place_of(start + size);

	if (mapping_ends.update(&end, &start))
		lose(LOST_MAPPING_ENDS_FULL);
}

static __always_inline void forget_mapping_end(u64 start, u64 size)
{
	struct place end = place_of(start + size);
	u64 *known = mapping_ends.lookup(&end);

	if (known && *known == start)
		mapping_ends.delete(&end);
}

/* Begin to hold a mapping; counts nothing, but for one that is replaced. False where there is no
 * room. */
static __always_inline int hold_mapping(u64 start, const struct block *mapping)
{
	struct place place = place_of(start);
	struct block *held, before;

	/* insert fails alike where the address is held and where the map is full */
	if (mappings.insert(&place, (struct block *)mapping)) {
		held = mappings.lookup(&place);
		if (!held) {
			lose(LOST_ALLOCS_FULL);
			return 0;
		}
		before = *held;
		mappings.update(&place, (struct block *)mapping);
		forget_mapping_end(start, before.size);
		count_free(&before, before.size, 1);
		lose(LOST_MISSED_FREES);
	}
	note_mapping_end(start, mapping->size);
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
static __always_inline u64 cut_piece(u64 address, u64 length, struct piece *piece)
{
	struct place place = place_of(address), end = place_of(address + length);
	struct block *held = mappings.lookup(&place), rest;
	u64 *start;

	piece->at_end = !held;
	if (piece->at_end) {
		start = mapping_ends.lookup(&end);
		if (!start)
			return 0;
		place.address = *start;
		held = mappings.lookup(&place);
		if (!held || place.address + held->size != end.address)
			return 0;
	}
	piece->mapping = rest = *held;
	if (mappings.delete(&place))
		return 0;	/* another thread was first */
	forget_mapping_end(place.address, rest.size);
	if (rest.size <= length) {
		piece->left = 0;
		return rest.size;
	}
	piece->mapping.size = length;
	piece->left = rest.size -= length;
	if (!hold_mapping(piece->at_end ? place.address : end.address, &rest))
		count_free(&rest, rest.size, 1);
	return length;
}
