/* bcc's helpers.h chooses between spellings of its own macros by version; programs here use none
 * that differ. The running kernel's version is never looked at: features are probed. */
#define KERNEL_VERSION(major, minor, patch) \
	(((major) << 16) + ((minor) << 8) + ((patch) > 255 ? 255 : (patch)))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 15, 0)
