/* struct pt_regs of x86-64 as a BPF program sees it (arch/x86/include/asm/ptrace.h): the order is
 * the one in which the kernel pushes registers, so it is an interface. */
#ifndef LEAKTOP_ASM_PTRACE_H
#define LEAKTOP_ASM_PTRACE_H

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;	/* saved by the callee */
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di;	/* saved by the caller */
	unsigned long orig_ax;
	unsigned long ip, cs, flags, sp, ss;	/* pushed by the processor */
};

#endif
