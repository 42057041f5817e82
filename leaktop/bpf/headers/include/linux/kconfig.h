/* Stands in for the kernel's configuration, which bcc includes first of all. bcc asks two things
 * of it: that BPF is there, and (by absence) that nothing of the host's build leaks in. */
#define CONFIG_BPF 1
#define CONFIG_BPF_SYSCALL 1
