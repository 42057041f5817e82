/* Packet types, for programs that filter packets. */
#include <linux/types.h>
